"""Every pipeline of every backend reads back from its text, and so do its reproducers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.fx import GraphModule

from docs.examples.extend.npu import NPU
from quantfx import backends
from quantfx.backends.catalog import NAMES, passes
from quantfx.backends.checks.lowering import EAGER
from quantfx.backends.inductor.compile import POST_GRAD
from quantfx.backends.inductor.lowered_pair import HIDE
from quantfx.passes.errors import PassError, PipelineError
from quantfx.passes.pipeline.base import Pass
from quantfx.passes.pipeline.instruments import Instrument
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.pipeline.record import PassRecord
from tests.models.small import mlp
from tests.refusals import refused
from tests.unchecked import capture

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("x86", {}),
    ("x86", {"smooth": 0.5}),
    ("xpu", {}),
    ("native", {}),
    ("native", {"engine": "qnnpack", "limits": False}),
]


def pipelines() -> Iterator[tuple[str, Pipeline]]:
    for name, options in OPTIONS:
        backend = backends.get(name, target="any", **options)
        for verb in ("prepare", "convert", "lower"):
            yield f"{name}-{options}-{verb}", getattr(backend, f"{verb}_pipeline")
        if backend.qat is not None:
            yield f"{name}-{options}-finish", backend.qat.finish
    yield "npu-prepare", NPU.prepare_pipeline
    for each in (EAGER, HIDE, POST_GRAD):
        yield each.name, each


PIPELINES = dict(pipelines())


def test_every_backend_is_here() -> None:
    assert {name for name, _ in OPTIONS} == set(backends.NAMES)


@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)
def test_text_reads_back(pipeline: Pipeline) -> None:
    assert Pipeline.parse(str(pipeline)) == pipeline


def test_passes_of_backends_are_found_by_their_names() -> None:
    assert tuple(each.name for each in passes()) == NAMES
    assert len(set(NAMES)) == len(NAMES)
    for each in passes():
        [element] = Pipeline.parse(each.name).elements
        assert type(element) is each
    with refused("unknown-name", PipelineError, site="carry-qparam", says="'carry-qparams'"):
        Pipeline.parse("carry-qparam")


class Stop(Instrument):
    """Fail behind the last pass, as if it had."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._last = len(pipeline) - 1

    def after(self, position: int, each: Pass, module: GraphModule, record: PassRecord) -> None:
        if position == self._last:
            raise RuntimeError("stop")


@pytest.mark.parametrize("name", [*backends.NAMES, "npu"])
def test_the_reproducer_of_every_step_runs_as_printed(name: str) -> None:
    backend = NPU if name == "npu" else backends.get(name, target="any")
    module = capture(mlp(), (X,))
    for pipeline in (backend.prepare_pipeline, backend.convert_pipeline, backend.lower_pipeline):
        with refused("pass-failed", PassError) as error:
            pipeline.run(module, backend.context, instruments=[Stop(pipeline)])
        _, _, reproducer = str(error.value).rpartition("reproduce: ")
        known = {"Pipeline": Pipeline, "module": module, "context": backend.context}
        reproduced = eval(reproducer, known)
        after = pipeline.run(module, backend.context)
        assert str(reproduced.graph) == str(after.graph)
        module = after
        module(X)  # calibrates what was prepared
        if not backend.kernels and pipeline is backend.convert_pipeline:
            break
