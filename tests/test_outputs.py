"""Whatever a model returns beside and around tensors comes back, in every form of the result."""

from __future__ import annotations

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx import Result, backends
from quantfx.passes.errors import CaptureError, FileError
from quantfx.passes.inputs.structure_text import decode_structure
from quantfx.tools.models.seeded import seeded
from tests.refusals import refused, warned

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Pair(NamedTuple):
    """A named tuple of a user."""

    first: Tensor
    second: Tensor


@dataclasses.dataclass
class Unknown:
    """A dataclass that torch has not been told of."""

    value: Tensor


class Returning(nn.Module):
    """A linear layer, and results made of input and output."""

    def __init__(self, results: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.results = results

    def forward(self, x: Tensor) -> Any:
        """Compute."""
        return self.results(x, self.linear(x))


RESULTS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "text": lambda x, y: (y, "name"),
    "numbers": lambda x, y: {"y": y, "scale": 0.5, "size": x.shape[0], "flag": True, "none": None},
    "inputs and doubles": lambda x, y: (y, x, y, y.relu(), x[0]),
    "nested": lambda x, y: [{"a": (y, [1, ("b", y + 1)])}, OrderedDict(c=y)],
    "named": lambda x, y: {"pair": Pair(y, y + 1), "label": "b"},
    "torch's own": lambda x, y: y.topk(2),
    "number of data": lambda x, y: (y, (x > 0).sum().item()),
}


def same(one: Any, other: Any) -> None:
    """Fail unless two results are equal, kinds included, but for what int8 rounds."""
    assert type(one) is type(other)
    if isinstance(other, Tensor):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, atol=0.06, rtol=0.05)
    elif isinstance(other, dict):
        assert list(one) == list(other)
        for key in other:
            same(one[key], other[key])
    elif isinstance(other, (list, tuple)):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            same(mine, theirs)
    else:
        assert one == other


@functools.cache
def quantized(results: Callable[[Tensor, Tensor], Any]) -> tuple[Any, Result]:
    model = seeded(lambda: Returning(results))
    with torch.no_grad():
        expected = model(X)
    x86 = backends.get("x86", target="avx2")
    return expected, quantfx.quantize(model, (X,), calibration=[X], backend=x86)


PLAIN = [name for name in RESULTS if name != "torch's own"]
# What else is compiled has its outputs put together by the same code.
COMPILED = {"nested", "number of data"}


@pytest.mark.parametrize("name", PLAIN)
def test_kernels(name: str) -> None:
    expected, result = quantized(RESULTS[name])
    same(result.module(X), expected)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.sweep] * (name not in COMPILED)) for name in PLAIN],
)
def test_compiled(name: str) -> None:
    expected, result = quantized(RESULTS[name])
    same(result.compile()(X), expected)


@pytest.mark.parametrize("name", RESULTS)
def test_files(name: str, tmp_path: Path) -> None:
    _, result = quantized(RESULTS[name])
    result.save(tmp_path / "model.quantfx")
    with torch.no_grad():
        same(quantfx.load(tmp_path / "model.quantfx").module(X), result.module(X))


@pytest.mark.sweep
def test_a_library() -> None:
    def results(x: Tensor, y: Tensor) -> Any:
        return {"pair": Pair(y, x), "label": "b", "size": x.shape[0], "most": y.topk(1)}

    expected, result = quantized(results)
    expected["most"] = result.module(X)["most"]  # which columns these are, rounding decides
    same(result.compile(wrapper="aot")(X), expected)


def test_onnx_leaves_constants_out_and_says_so(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    expected, result = quantized(RESULTS["text"])
    with warned("constant-results", says="'name'"):
        result.export_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (value,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    same(torch.from_numpy(value), expected[0])


def test_what_no_graph_holds_is_refused_with_the_line_to_write() -> None:
    with refused(
        "export-rejects",
        CaptureError,
        site="Returning",
        says=r"torch\.export\.register_dataclass\(Unknown\)",
    ):
        quantized(lambda x, y: Unknown(y))
    with refused("export-rejects", CaptureError, site="Returning", says=r"torch\.device"):
        quantized(lambda x, y: (y, y.device))

    class DynamicCache:
        pass

    with refused(
        "export-rejects", CaptureError, site="Returning", says="DynamicCache.*use_cache=False"
    ):
        quantized(lambda x, y: (y, DynamicCache()))


def test_structures_of_files_import_nothing_but_model_outputs() -> None:
    named = '{"named_tuple": "antigravity.Pair", "fields": ["a"], "children": ["[1, {}]"]}'
    leaf = '[1, {\\"type\\": null, \\"context\\": null, \\"children_spec\\": []}]'
    with refused("not-imported", FileError, site="antigravity.Pair"):
        decode_structure(named.replace("[1, {}]", leaf))
    unknown = '[1, {"type": "antigravity.Output", "context": "null", "children_spec": []}]'
    with refused("not-imported", FileError):
        decode_structure(unknown)
    output = unknown.replace("antigravity", "transformers.models.none.modeling_none")
    with refused("not-imported", FileError, site="transformers.models.none.modeling_none"):
        decode_structure(output)
