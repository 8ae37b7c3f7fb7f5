"""A backend as code makes an equal one, or is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import quantfx
from quantfx import Pipeline, backends
from quantfx.backends import Backend
from quantfx.bisection.backend_code import backend_code, context_code
from quantfx.passes.errors import BisectError
from tests.refusals import refused

X86 = backends.get("x86", target="any", kernels="onednn")
BACKENDS: dict[str, Backend] = {
    "plain": X86,
    "native": backends.get("native", target="any"),
    "without templates": X86.without_templates("conv2d", "linear"),
    "with a config": X86.with_config(quantfx.Config("dynamic").call("linear", "float")),
    "of this machine": backends.get("x86", kernels="onednn").without_templates("linear"),
    "smooth": backends.get("x86", target="any", smooth=0.5),
    "repaired": backends.get("x86", target="any", repair=True),
    "of another CPU": backends.get("x86", target="avx2"),
    "with other pipelines": replace(X86, lower_pipeline=X86.lower_pipeline.without("merge-equal")),
}


@pytest.mark.parametrize("name", BACKENDS)
def test_code_makes_an_equal_backend(name: str) -> None:
    backend = BACKENDS[name]
    given = {"quantfx": quantfx, "replace": replace, "Pipeline": Pipeline}
    exec("\n".join(backend_code(backend)), given)
    assert given["backend"] == backend
    assert eval(context_code(backend.context), given) == backend.context


@pytest.mark.parametrize(
    "backend",
    [
        X86.with_config(quantfx.Config().where(lambda node: node.name == "linear", "float")),
        X86.renamed("mine"),
        backends.get("x86", target="any", reduce_range=True),
    ],
    ids=["a function", "a name", "other specs"],
)
def test_what_has_no_code_is_refused(backend: Backend) -> None:
    for code in (lambda: backend_code(backend), lambda: context_code(backend.context)):
        with refused("no-text-form", BisectError, site=backend.name):
            code()


@pytest.mark.parametrize(
    ("name", "options", "written"),
    [
        ("x86", {"weight_observer": "min_max"}, "('x86', ...) with no options but target, kernels, smooth, repair;"),
        ("native", {"limits": False}, "('native', ...) with no options but target;"),
        ("xpu", {"symmetric": True}, "('xpu', ...) with no options but target;"),
    ],
)  # fmt: skip
def test_the_options_that_have_code_are_named(
    name: str, options: dict[str, Any], written: str
) -> None:
    with refused("no-text-form", BisectError, fix=written):
        backend_code(backends.get(name, target="any", **options))
