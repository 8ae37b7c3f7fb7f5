"""A backend as code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.backends.checks.targets import TARGETS
from quantfx.passes.config.config import Config
from quantfx.passes.config.recipe import Recipe
from quantfx.passes.errors import BisectError, ConfigError
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.patterns.errors import QuantfxError

_KERNELS = ("onednn", "direct", "auto")
# Options of a backend that are recovered: these by trying; those that choose passes, as text.
_WRITTEN = {"x86": ("target", "kernels", "smooth", "repair")}
_FILES = ("prepare", "convert", "lower")


def backend_code(backend: Backend) -> tuple[str, ...]:
    """Return lines that assign an equal backend to ``backend``, with its pipelines as text.

    Raises:
        BisectError: no code makes such a backend.
    """

    def equal(made: Backend) -> bool:
        return _with_pipelines(made, backend) == backend

    reads_back = all(map(_reads_back, _pipelines(backend).values()))
    call = _remake(backend.recipe, (backend.target_name,), equal) if reads_back else None
    if call is None:
        raise _no_code(backend.name)
    texts = {name.upper(): str(each) for name, each in _pipelines(backend).items()}
    return (
        *(f"{name} = {text!r}" for name, text in texts.items()),
        f"backend = replace(\n    {call},",
        *(f"    {name.lower()}_pipeline=Pipeline.parse({name})," for name in texts),
        ")",
    )


def context_code(context: Context | None) -> str:
    """Return an expression for the context that a backend's passes are given.

    Raises:
        BisectError: no expression makes such a context.
    """
    if context is None or context == Context():
        return "None"
    if context.recipe is None:
        raise _no_code("")
    targets = ("host", "any", *TARGETS)
    call = _remake(context.recipe, targets, lambda made: made.context == context)
    if call is None:
        raise _no_code(context.recipe.name)
    return f"{call}.context"


def _remake(
    recipe: Recipe, targets: tuple[str, ...], equal: Callable[[Backend], bool]
) -> str | None:
    """Return a call that makes an ``equal`` backend of this recipe; None if no call does."""
    if recipe.name not in backends.NAMES:
        return None
    for get, made in _offered(recipe.name, targets):
        dropped = [each for each in made.recipe.patterns.names if each not in recipe.patterns.names]
        code = f"{get}.without_templates({str(dropped)[1:-1]})" if dropped else get
        if recipe.config != Config():
            try:
                code += f".with_config(quantfx.Config.from_toml({recipe.config.to_toml()!r}))"
            except ConfigError:  # a rule that selects by a function
                return None
        if equal(made.without_templates(*dropped).with_config(recipe.config)):
            return code
    return None


def _offered(name: str, targets: tuple[str, ...]) -> Iterator[tuple[str, Backend]]:
    """Yield the backends of a name, each after the call that makes it."""
    for kernels in _KERNELS if name == "x86" else (None,):
        options = {} if kernels is None else {"kernels": kernels}
        for target in targets:
            try:
                made = backends.get(name, target=target, **options)
            except QuantfxError:  # a backend that is not available here made nothing
                continue
            named = "".join(f", {key}={value!r}" for key, value in options.items())
            yield f"quantfx.backends.get({name!r}, target={target!r}{named})", made


def _no_code(name: str) -> BisectError:
    get = repr(name) if name in backends.NAMES else "name"
    options = ", ".join(_WRITTEN.get(name, ("target",)))
    return BisectError(
        f"no code in a file could make this backend '{name}'",
        rule="no-text-form",
        site=name,
        fix=f"take quantfx.backends.get({get}, ...) with no options but {options}; its config "
        "(without functions), templates (without_templates) and pipelines (of quantfx's passes) "
        "may be changed",
    )


def _pipelines(backend: Backend) -> dict[str, Pipeline]:
    return {name: getattr(backend, f"{name}_pipeline") for name in _FILES}


def _with_pipelines(made: Backend, like: Backend) -> Backend:
    return replace(
        made,
        prepare_pipeline=like.prepare_pipeline,
        convert_pipeline=like.convert_pipeline,
        lower_pipeline=like.lower_pipeline,
    )


def _reads_back(pipeline: Pipeline) -> bool:
    """Whether a pipeline's text makes it again: passes from elsewhere have no text here."""
    try:
        return Pipeline.parse(str(pipeline)) == pipeline
    except QuantfxError:
        return False
