"""The q/dq graph as ONNX, run in ONNX Runtime and compared with the graph itself."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

import quantfx
from quantfx import Result, backends
from quantfx.tools.models.bert import BERT_TINY, bert, bert_inputs
from quantfx.tools.models.seeded import seeded
from tests.models.small import cat_pool_net, residual_block
from tests.refusals import refused
from tests.saved_models import CASES, IMAGE, PICTURE, ROWS, mlp, quantized

FREE = ({0: Dim("batch", min=1, max=64)},)


@pytest.fixture(autouse=True, scope="module")
def translations_read_once() -> Iterator[None]:
    """Keep torch from reading its 500 translations anew for each export, a third of its time."""
    registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
    registry = registration.ONNXRegistry
    made = cache(registry.from_torchlib)

    def copied(**version: int) -> Any:
        kept, fresh = made(**version), registry()
        fresh._opset_version = kept.opset_version
        fresh.functions = {target: [*found] for target, found in kept.functions.items()}
        return fresh

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "from_torchlib", staticmethod(copied))
        yield


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str, *args: Any) -> Any:
        return None if name.startswith("onnx") else found(name, *args)

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", without)
    with refused("missing-package"):
        quantized(mlp(), ROWS).export_onnx(tmp_path / "model.onnx")


class Session:
    """An ONNX model in ONNX Runtime, which computes as written unless it may optimize."""

    def __init__(self, path: Path, *, optimized: bool) -> None:
        runtime = pytest.importorskip("onnxruntime")
        onnx = pytest.importorskip("onnx")
        levels = runtime.GraphOptimizationLevel
        options = runtime.SessionOptions()
        options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
        )
        options.optimized_model_filepath = f"{path}.run"
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [list(each.shape) for each in self._session.get_inputs()]
        self.operators = Counter(
            node.op_type for node in onnx.load(f"{path}.run" if optimized else str(path)).graph.node
        )
        dtypes = onnx.TensorProto.DataType
        self.weights = {
            dtypes.Name(w.data_type)
            for w in onnx.load(str(path)).graph.initializer
            if len(w.dims) > 1
        }

    def __call__(self, *inputs: Tensor) -> Tensor:
        names = [each.name for each in self._session.get_inputs()]
        first, *_ = self._session.run(
            None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        )
        return torch.from_numpy(first)


def first(output: Any) -> Tensor:
    value: Tensor = output[0] if isinstance(output, tuple) else output
    return value


def exported(
    result: Result, path: Path, *inputs: tuple[Tensor, ...], pools: bool = False
) -> tuple[Session, Session]:
    """Export, compare both sessions with the q/dq graph, and return them.

    With ``pools``, every result depends on some value that is rounded to another step.
    """
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    result.export_onnx(path)
    plain, optimized = Session(path, optimized=False), Session(path, optimized=True)
    for each in inputs:
        expected = first(result.quantized(*each))
        largest = expected.abs().max()
        # A sum in another order can put a value on the other side of a rounding: one step.
        assert (plain(*each) - expected).abs().max() <= 0.01 * largest
        assert pools or (plain(*each) - expected).abs().median() <= 1e-5 * largest
        assert (optimized(*each) - expected).abs().max() <= 0.02 * largest
    return plain, optimized


def test_a_convolution_net_of_any_batch(tmp_path: Path) -> None:
    result = quantized(residual_block(), IMAGE, dynamic_shapes=FREE)
    plain, optimized = exported(
        result, tmp_path / "m.onnx", (IMAGE,), (IMAGE[:1],), (IMAGE.repeat(4, 1, 1, 1),)
    )
    assert plain.inputs == [["batch", 4, 8, 8]]
    assert plain.weights == {"INT8"}
    assert plain.operators["QuantizeLinear"] == 2
    assert plain.operators["DequantizeLinear"] == 4
    assert optimized.operators["QLinearConv"] == 1, "ONNX Runtime has no convolution with a sum"


def test_pools_and_cat(tmp_path: Path) -> None:
    _, optimized = exported(
        quantized(cat_pool_net(), PICTURE), tmp_path / "m.onnx", (PICTURE,), pools=True
    )
    assert {"QLinearConv", "QLinearConcat"} <= optimized.operators.keys()


@pytest.mark.sweep  # the decoder below has its layers, and masks
def test_an_encoder(tmp_path: Path) -> None:
    inputs = bert_inputs(BERT_TINY)
    plain, _ = exported(quantized(bert(BERT_TINY), *inputs), tmp_path / "m.onnx", inputs)
    assert plain.operators["QuantizeLinear"] == 9


def test_ranges_of_any_length_and_batch(tmp_path: Path) -> None:
    """Two free dimensions, and the masks that follow from them."""
    tokens = torch.arange(12).reshape(2, 6)
    exported(CASES["decoder"](), tmp_path / "m.onnx", (tokens,), (tokens[:1, :4],))


def test_the_ends_of_a_narrow_range_are_kept(tmp_path: Path) -> None:
    """torch's own translation clamps to the dtype, so that inputs beyond the range get away."""
    backend = backends.get("x86", target="avx2", reduce_range=True)
    result = quantized(mlp(), ROWS, backend=backend, calibration=[ROWS / 4])
    assert not torch.allclose(result.quantized(ROWS), mlp()(ROWS), atol=0.1)
    plain, _ = exported(result, tmp_path / "m.onnx", (ROWS,))
    assert plain.operators["Clip"] == 2


@pytest.mark.parametrize("reduce_range", [pytest.param(False, marks=pytest.mark.sweep), True])
def test_dynamic_ranges(reduce_range: bool, tmp_path: Path) -> None:
    backend = backends.get("x86", target="avx512_vnni", config="dynamic", reduce_range=reduce_range)
    result = quantized(mlp(), ROWS, backend=backend, dynamic_shapes=FREE)
    zeros = torch.zeros(2, 8)
    plain, _ = exported(
        result,
        tmp_path / "m.onnx",
        (ROWS,),
        (ROWS[:1] * 9,),
        (ROWS.abs() + 1,),
        (-ROWS.abs() - 1,),
        (zeros,),
    )
    assert plain.operators["QuantizeLinear"] == 2


@pytest.mark.parametrize(("mode", "weights"), [("weight-only", "INT8"), ("fp16", "FLOAT")])
def test_modes_of_weights(mode: str, weights: str, tmp_path: Path) -> None:
    plain, _ = exported(quantized(mlp(), ROWS, config=mode), tmp_path / "m.onnx", (ROWS,))
    assert plain.weights == {weights}, "torch's exporter folds the cast of a float16 weight"


def test_groups_of_a_row_are_rows_of_their_own(tmp_path: Path) -> None:
    layer, x = seeded(lambda: torch.nn.Linear(64, 8)), torch.randn(3, 64)
    config = quantfx.Config("weight-only").weights(group=32)
    plain, _ = exported(quantized(layer, x, config=config), tmp_path / "m.onnx", (x,))
    assert plain.weights == {"INT8"}
    assert plain.operators["DequantizeLinear"] == 1


def test_native_and_xpu_and_a_loaded_result(tmp_path: Path) -> None:
    exported(CASES["native"](), tmp_path / "native.onnx", (torch.arange(12).reshape(2, 6),))
    CASES["xpu"]().save(tmp_path / "file")
    exported(quantfx.load(tmp_path / "file"), tmp_path / "xpu.onnx", (IMAGE,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (CASES["choice"], "onnx-rejects: torch.cond"),
        (CASES["nested"], "written-buffer: count"),
        (lambda: quantized(Svd(), ROWS), "onnx-rejects"),
    ],
)
def test_what_cannot_be_exported_is_named(
    make: Callable[[], Result], message: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    with refused(message):
        make().export_onnx(tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


class Svd(torch.nn.Module):
    """Has an operator that ONNX does not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(self.layer(x))
