"""A backend as code, or as what is saved beside the code."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.passes.errors import ConfigError
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.patterns.errors import QuantfxError

_KERNELS = ("onednn", "direct", "auto")
_FILES = ("prepare", "convert", "lower")


@dataclass(frozen=True)
class BackendCode:
    """How a file gets a backend.

    Attributes:
        lines: Which assign it to ``backend``.
        saved: What the lines read from ``saved``.
    """

    lines: tuple[str, ...]
    saved: dict[str, Any] = field(default_factory=dict[str, Any])


def backend_code(backend: Backend) -> BackendCode:
    """Return lines that make an equal backend; one that no lines make is saved as it is.

    Its pipelines are in the lines as text.
    """
    call = _call(backend)
    if call is None:
        return BackendCode(('backend = saved["backend"]',), {"backend": backend})
    texts = {name: str(getattr(backend, f"{name}_pipeline")) for name in _FILES}
    return BackendCode(
        (
            *(f"{name.upper()} = {text!r}" for name, text in texts.items()),
            f"backend = replace(\n    {call},",
            *(f"    {name}_pipeline=Pipeline.parse({name.upper()})," for name in _FILES),
            ")",
        )
    )


def context_code(context: Context | None) -> BackendCode:
    """Return one expression for what the passes of a backend are given."""
    if context is None or context == Context():
        return BackendCode(("None",))
    name = context.recipe.name if context.recipe else ""
    for options in _options(name):
        for target in ("host", "any"):
            made = _made(name, target, options)
            if made is not None and made.context == context:
                return BackendCode((f"{_get(name, target, options)}.context",))
    return BackendCode(('saved["context"]',), {"context": context})


def _options(name: str) -> list[dict[str, str]]:
    if name not in backends.NAMES:
        return []
    return [{"kernels": each} for each in _KERNELS] if name == "x86" else [{}]


def _made(name: str, target: str, options: dict[str, str]) -> Backend | None:
    try:
        return backends.get(name, target=target, **options)
    except QuantfxError:  # what is not available here made nothing
        return None


def _get(name: str, target: str, options: dict[str, str]) -> str:
    named = "".join(f", {key}={value!r}" for key, value in options.items())
    return f"quantfx.backends.get({name!r}, target={target!r}{named})"


def _call(backend: Backend) -> str | None:
    """Return the call of ``quantfx.backends.get`` that makes it, but for its pipelines."""
    if backend.name not in backends.NAMES or not _reads_back(backend):
        return None
    try:
        config = backend.recipe.config.to_toml()
    except ConfigError:  # a rule that selects by a function
        return None
    target = backend.target_name
    for options in _options(backend.name):
        made = _made(backend.name, target, options)
        if made is None:
            continue
        if _with_pipelines(made.with_config(backend.recipe.config), backend) == backend:
            get = _get(backend.name, target, options)
            plain = backend.recipe.config == type(backend.recipe.config)()
            return get if plain else f"{get}.with_config(quantfx.Config.from_toml({config!r}))"
    return None


def _with_pipelines(made: Backend, like: Backend) -> Backend:
    return replace(
        made,
        prepare_pipeline=like.prepare_pipeline,
        convert_pipeline=like.convert_pipeline,
        lower_pipeline=like.lower_pipeline,
    )


def _reads_back(backend: Backend) -> bool:
    """Whether the text of each pipeline makes it again: passes of others have no text here."""
    for name in _FILES:
        pipeline = getattr(backend, f"{name}_pipeline")
        try:
            if Pipeline.parse(str(pipeline)) != pipeline:
                return False
        except QuantfxError:
            return False
    return True
