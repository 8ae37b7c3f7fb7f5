"""A saved result comes back as it was: graph, names, annotations, drawing, report, results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

import quantfx
from quantfx import Config, Result, backends
from quantfx.passes.draw.dot import to_dot
from quantfx.passes.errors import FileError
from quantfx.passes.graph.facts import facts_of
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.observers.derived import DerivedFrom
from quantfx.passes.observers.fixed import FixedQParams
from quantfx.passes.observers.min_max import MinMaxObserver
from quantfx.passes.observers.observer_name import NamedObserver
from quantfx.passes.pipeline.record import records_of
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.quant.spec import QuantSpec
from quantfx.saving.annotation_text import decode_spec, encode_spec
from quantfx.tools.doctor.native_examples import NATIVE_EXAMPLES
from quantfx.tools.doctor.template_examples import EXAMPLES
from quantfx.tools.models.seeded import seeded
from tests.export_cases import CASES as EXPORT_CASES
from tests.models.small import residual_block
from tests.refusals import refused, warned
from tests.saved_models import (
    CASES,
    IMAGE,
    NESTED_ARGS,
    NESTED_KWARGS,
    ROWS,
    mlp,
    quantized,
)


def described(module: GraphModule) -> list[object]:
    """What passes and people know of a graph."""
    return [
        (path, node.op, str(node.target), str(node.args), str(node.kwargs), *meta(node))
        for path, graph_module in all_graphs(module)
        for node in graph_module.graph.nodes
    ]


def meta(node: Node) -> tuple[object, ...]:
    kept = (
        node.meta.get(key) or None for key in ("nn_module_stack", "quantfx_group", "quantfx_by")
    )
    return (node.name, annotation_of(node), form(node.meta.get("val")), *map(str, kept))


def form(value: Any) -> object:
    if isinstance(value, Tensor):
        return value.dtype, value.device, str(value.shape), str(value.stride())
    if isinstance(value, (list, tuple)):
        return [form(each) for each in value]
    return str(value)


def state(module: GraphModule) -> dict[str, tuple[Tensor, bool, bool]]:
    parameters = dict(module.named_parameters())
    return {
        name: (value.detach().clone(), name in parameters, value.requires_grad)
        for name, value in (*parameters.items(), *module.named_buffers())
    }


def equal_state(left: GraphModule, right: GraphModule) -> bool:
    ours, theirs = state(left), state(right)
    return ours.keys() == theirs.keys() and all(
        kind == theirs[name][1:] and value.dtype == theirs[name][0].dtype and torch.equal(value, theirs[name][0])
        for name, (value, *flags) in ours.items()
        for kind in [tuple(flags)]
    )  # fmt: skip


def objects(module: GraphModule) -> tuple[int, int]:
    return len(list(module.parameters())), len(list(module.buffers()))


def assert_same(saved: Result, loaded: Result) -> None:
    assert described(saved.quantized) == described(loaded.quantized)
    assert to_dot(saved.quantized) == to_dot(loaded.quantized)
    assert to_dot(saved.module if saved.backend.name != "xpu" else saved.quantized) == to_dot(
        loaded.module if saved.backend.name != "xpu" else loaded.quantized
    )
    assert equal_state(saved.quantized, loaded.quantized)
    assert objects(saved.quantized) == objects(loaded.quantized)
    assert facts_of(saved.quantized) == facts_of(loaded.quantized)
    assert records_of(saved.quantized) == records_of(loaded.quantized)
    assert saved.report == loaded.report
    assert str(saved.report) == str(loaded.report)
    assert saved.origin == loaded.origin
    assert saved.backend.recipe.config == loaded.backend.recipe.config
    left, right = saved.quantized.meta, loaded.quantized.meta
    assert left["quantfx_inputs"] == right["quantfx_inputs"]


def assert_equal_results(saved: Result, loaded: Result) -> None:
    """To the bit, on the inputs that the file itself brought."""
    args, kwargs = loaded._inputs.args, loaded._inputs.kwargs
    torch.testing.assert_close(
        (args, kwargs), (saved._inputs.args, saved._inputs.kwargs), rtol=0, atol=0
    )
    for name in ("quantized", "module") if saved.backend.name != "xpu" else ("quantized",):
        ours, theirs = getattr(saved, name)(*args, **kwargs), getattr(loaded, name)(*args, **kwargs)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", CASES)
def test_what_is_loaded_is_what_was_saved(name: str, tmp_path: Path) -> None:
    result = CASES[name]()
    before = described(result.quantized), state(result.quantized), result.report
    result.save(tmp_path / "first")
    assert before[0] == described(result.quantized)
    assert before[2] == result.report
    assert all(torch.equal(v, before[1][k][0]) for k, (v, *_) in state(result.quantized).items())
    loaded = quantfx.load(tmp_path / "first")
    assert_same(result, loaded)
    loaded.save(tmp_path / "second")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert_equal_results(result, loaded)


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("backend", "name"),
    [("x86", name) for name in EXAMPLES] + [("native", name) for name in NATIVE_EXAMPLES],
)
def test_every_template(backend: str, name: str, tmp_path: Path) -> None:
    example = (EXAMPLES if backend == "x86" else NATIVE_EXAMPLES)[name]
    result = quantized(example.model(), *example.inputs(), config=example.config, backend=backend)
    result.save(tmp_path / "file")
    loaded = quantfx.load(tmp_path / "file")
    assert_same(result, loaded)
    assert_equal_results(result, loaded)


@pytest.mark.sweep
@pytest.mark.parametrize("name", EXPORT_CASES)
def test_every_spelling(name: str, tmp_path: Path) -> None:
    case = EXPORT_CASES[name]
    batch = {"x": case.inputs[0], **case.kwargs} if case.kwargs else case.inputs
    options = {"example_kwargs": dict(case.kwargs), "calibration": [batch], "strict": False}
    result = quantized(case.make(), *case.inputs, **options)
    result.save(tmp_path / "file")
    loaded = quantfx.load(tmp_path / "file")
    assert_same(result, loaded)
    assert_equal_results(result, loaded)


def test_state_of_nested_inputs_and_kinds_of_containers(tmp_path: Path) -> None:
    result = CASES["nested"]()
    result.module(*NESTED_ARGS, **NESTED_KWARGS)  # which counts in the lowered module's own buffer
    result.quantized(*NESTED_ARGS, **NESTED_KWARGS)  # and in this one
    result.save(tmp_path / "file")
    loaded = quantfx.load(tmp_path / "file")
    output = loaded.module(*NESTED_ARGS, **NESTED_KWARGS)
    assert [type(value).__name__ for value in output.values()] == [
        "list",
        "OrderedDict",
        "NoneType",
        "Tensor",
    ]
    assert output["count"].tolist() == [2.0] * 16
    weights = [n for n, v in loaded.quantized.named_buffers() if v.dtype == torch.int8]
    assert len(weights) == len(list(loaded.quantized.parameters())) == 1, "two layers, one weight"


def test_a_file_is_a_quarter_of_the_float_weights(tmp_path: Path) -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 512)))
    x = torch.randn(4, 512)
    torch.save(model.state_dict(), tmp_path / "float")
    quantized(model, x).save(tmp_path / "int8")
    ratio = (tmp_path / "int8").stat().st_size / (tmp_path / "float").stat().st_size
    assert ratio < 0.27


def test_a_view_is_stored_without_the_rest_and_shared_memory_once(tmp_path: Path) -> None:
    class Views(nn.Module):
        whole: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)
            self.layer.bias = nn.Parameter(torch.zeros(100_000)[:8])
            self.register_buffer("whole", torch.arange(16.0))

        def forward(self, x: Tensor) -> Tensor:
            self.whole[:8].add_(1)
            return self.layer(x) + self.whole[8:]

    result = quantized(seeded(Views), torch.zeros(40_000, 8)[:4])
    result.save(tmp_path / "file")
    assert (tmp_path / "file").stat().st_size < 20_000
    loaded = quantfx.load(tmp_path / "file")
    assert torch.equal(loaded.module(ROWS), result.module(ROWS))


def test_a_result_is_compiled_and_compared_after_loading(tmp_path: Path) -> None:
    result = CASES["any batch"]()
    result.save(tmp_path / "file")
    loaded = quantfx.load(tmp_path / "file")
    assert all(not site.steps for site in loaded.compare_sites())
    compiled = loaded.compile()
    assert loaded.report.compiled == loaded.report.planned == result.report.planned
    other = IMAGE[:1]
    torch.testing.assert_close(compiled(IMAGE), result.module(IMAGE), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compiled(other), result.module(other), rtol=1e-4, atol=1e-5)


def test_input_values_can_be_left_out(tmp_path: Path) -> None:
    x = IMAGE.contiguous(memory_format=torch.channels_last)
    result = quantized(residual_block(), x)
    result.save(tmp_path / "file", input_values=False)
    (loaded,) = quantfx.load(tmp_path / "file")._inputs.args
    assert loaded.count_nonzero() == 0
    assert (loaded.shape, loaded.stride(), loaded.dtype) == (x.shape, x.stride(), x.dtype)
    result.save(tmp_path / "file")
    (loaded,) = quantfx.load(tmp_path / "file")._inputs.args
    assert torch.equal(loaded, x)
    assert loaded.stride() == x.stride()


def test_a_config_with_a_function_is_left_out_with_a_warning(tmp_path: Path) -> None:
    config = Config("static").where(lambda node: node.name == "linear_1", None)
    result = quantized(mlp(), ROWS, config=config)
    with warned("no-text-form", site="config"):
        result.save(tmp_path / "file")
    loaded = quantfx.load(tmp_path / "file")
    assert loaded.report == result.report
    assert torch.equal(loaded.module(ROWS), result.module(ROWS))


def test_a_variant_of_a_backend_asks_for_itself(tmp_path: Path) -> None:
    backend = backends.get("x86").without_templates("mul")
    result = quantized(mlp(), ROWS, backend=backend)
    result.save(tmp_path / "file")
    with warned("other-backend", site="x86"):
        quantfx.load(tmp_path / "file")
    assert quantfx.load(tmp_path / "file", backend=backend).report == result.report
    options: dict[str, Any] = {"reduce_range": True, "observer": "min_max"}  # for preparing only
    quantized(mlp(), ROWS, backend=backends.get("x86", **options)).save(tmp_path / "file")
    assert quantfx.load(tmp_path / "file").report.policy == "activations in [0, 127] on request"


class Own(MinMaxObserver):
    """Somebody's own observer, whose code a file does not hold."""


def test_a_file_names_somebodys_own_observer(tmp_path: Path) -> None:
    act = backends.get("x86").recipe.spec("act")
    assert isinstance(act, QuantSpec)
    backend = backends.get("x86").with_specs(act=replace(act, observer=Own))
    result = quantized(mlp(), ROWS, backend=backend)
    result.save(tmp_path / "file")
    for each in (result, quantfx.load(tmp_path / "file")):
        [layer] = each.explain("0")
        assert [tensor.observer for tensor in layer.tensors] == ["Own", "weight_mse"]


@pytest.mark.parametrize(
    ("observer", "kept"),
    [
        ("mse", "mse"),
        (FixedQParams(0.5, 3), FixedQParams(0.5, 3)),
        (DerivedFrom((Site("", "linear", "input"),)), DerivedFrom((Site("", "linear", "input"),))),
        (Own, NamedObserver("Own")),
        (NamedObserver("Own"), NamedObserver("Own")),
    ],
)
def test_a_spec_as_text_says_where_its_range_is_from(observer: Any, kept: Any) -> None:
    spec = QuantSpec(torch.uint8, 0, 255, observer=observer)
    text = json.dumps(encode_spec(spec))
    assert decode_spec(json.loads(text)) == replace(spec, observer=kept)


def test_the_origin_names_versions_and_pipelines() -> None:
    result = quantized(mlp(), ROWS)
    origin = result.origin
    assert (origin.quantfx, origin.torch) == (quantfx.__version__, torch.__version__)
    assert origin.target == backends.targets.host().name
    assert origin.pipelines["convert"] == (
        "round-weights{from_samples=32}, correct-bias{from_samples=32}, insert-qdq, "
        "share-tied-tables, fold-weights, pack-halves, tidy, store-in-half"
    )
    other = quantized(mlp(), ROWS, config="dynamic").origin
    assert other.pipelines == origin.pipelines
    assert other.fingerprints != origin.fingerprints


def test_nothing_is_left_of_a_save_that_fails(tmp_path: Path) -> None:
    result = quantized(mlp(), ROWS)
    path = tmp_path / "file"
    result.save(path)
    before = path.read_bytes()
    with (
        mock.patch("torch.save", side_effect=OSError(28, "No space left on device")),
        refused("unwritable-file", FileError, site="file"),
    ):
        result.save(path)
    with mock.patch("torch.save", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        result.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    quantized(mlp(), ROWS).save(str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert zipfile.is_zipfile(tmp_path / "file")


FRESH = """
import sys, torch, quantfx
result = quantfx.load(sys.argv[1])
x, expected = torch.load(sys.argv[2])
assert torch.equal(result.module(x), expected)
assert result.report.planned == result.report.lowered, result.report
assert not {"torchao", "sklearn", "onnx", "tests"} & set(sys.modules)
print("same")
"""


def test_a_process_that_knows_only_torch_and_quantfx(tmp_path: Path) -> None:
    result = CASES["residual"]()
    result.save(tmp_path / "file")
    torch.save((IMAGE, result.module(IMAGE)), tmp_path / "expected")
    command = [sys.executable, "-c", FRESH, str(tmp_path / "file"), str(tmp_path / "expected")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent
    )
    assert done.stdout == "same\n", done.stderr
