from __future__ import annotations

import json
import subprocess
from functools import lru_cache
from pathlib import Path
from shutil import which

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import quantfx
from quantfx import backends
from quantfx.passes.draw.diff.graph_diff import FieldChange, GraphDiff
from tests.refusals import refused

X = torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)


class Net(nn.Module):
    def __init__(self, act: str = "act", *, extra: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.extra = nn.Conv2d(4, 4, 3, padding=1) if extra else None
        self.name = act
        self.add_module(act, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y = self.get_submodule(self.name)(self.first(x))
        if self.extra is not None:
            y = self.extra(y)
        return torch.sigmoid(self.second(y) + y)


@lru_cache
def captured(act: str = "act", extra: bool = False) -> GraphModule:
    return quantfx.capture(Net(act, extra=extra).eval(), X)


@lru_cache
def result(*, backend: str = "x86", keep: str = "") -> quantfx.Result:
    config = quantfx.Config().module(keep, None) if keep else None
    model = Net().eval()
    return quantfx.quantize(model, X, calibration=[X], backend=backend, config=config)


def changes(diff: GraphDiff, name: str) -> dict[str, FieldChange]:
    (row,) = [each for each in diff.rows if each.after == name]
    assert row.change == "changed"
    return {f"{field.what} {field.slot}".strip(): field for field in row.fields}


def test_a_graph_and_itself_are_the_same() -> None:
    diff = quantfx.diff(captured(), captured())
    assert not diff
    assert (diff.rows, diff.same) == ((), 7)
    assert str(diff).strip() == "0 appeared, 0 vanished, 0 changed, 7 the same"


def test_a_renaming_alone_is_no_difference() -> None:
    renamed = quantfx.diff(captured(), captured("nonlinearity"))
    assert renamed.rows == ()
    copy = quantfx.capture(Net().eval(), X)
    for node in copy.graph.nodes:
        node.name = f"other_{node.name}"
    assert not quantfx.diff(captured(), copy)


def test_a_version_with_one_operator_more() -> None:
    there = quantfx.diff(captured(), captured(extra=True))
    assert [row.after for row in there.of("appeared")] == ["extra/conv2d"]
    assert there.of("vanished") == ()
    assert changes(there, "second/conv2d") == {
        "input input": FieldChange("input", "input", "act/relu", "extra/conv2d")
    }
    back = quantfx.diff(captured(extra=True), captured())
    assert [row.before for row in back.of("vanished")] == ["extra/conv2d"]
    assert [row.after for row in back.of("changed")] == [r.before for r in there.of("changed")]


def test_other_weights_are_a_change() -> None:
    model = Net().eval()
    with torch.no_grad():
        model.second.weight[-1, -1, -1, -1] += 1
    diff = quantfx.diff(captured(), quantfx.capture(model, X))
    assert set(changes(diff, "second/conv2d")) == {"values weight"}
    assert len(diff.rows) == 1


def test_what_shares_neither_operator_nor_inputs_is_no_pair() -> None:
    a = quantfx.capture(nn.Sequential(nn.Sigmoid(), nn.Softplus()).eval(), X)
    b = quantfx.capture(nn.Sequential(nn.Tanh(), nn.GELU()).eval(), X)
    diff = quantfx.diff(a, b)
    assert [row.before for row in diff.of("vanished")] == ["0/sigmoid", "1/softplus"]
    assert [row.after for row in diff.of("appeared")] == ["0/tanh", "1/gelu"]


def test_stages_of_a_pipeline() -> None:
    diff = quantfx.diff(captured(), result().quantized)
    told = changes(diff, "first/conv2d")
    assert told["quantization input"].before == "float"
    assert told["quantization input"].after.startswith("u8")
    assert told["quantization weight"].after.endswith("per-channel")
    assert "scale" in told["qparams input"].after
    assert told["match"].after == "conv2d_unary, static"
    assert not diff.of("appeared")
    assert not diff.of("vanished")


def test_lowering_says_where_operators_went() -> None:
    backend = backends.get("x86", kernels="onednn")
    quantized = result().quantized
    diff = quantfx.diff(quantized, backend.lower(quantized, strict=False))
    kernels = {f.after for row in diff.of("changed") for f in row.fields if f.what == "kernel"}
    assert kernels == {"qconv_pointwise"}
    (gone,) = diff.of("vanished")
    assert (gone.before, gone.note) == ("act/relu", "computed by first/onednn.qconv_pointwise")


def test_results_of_two_recipes() -> None:
    told = changes(quantfx.diff(result(), result(keep="first")), "first/conv2d")
    assert told["quantization input"].after == "float"
    assert told["kernel"].before
    assert told["kernel"].after == ""
    assert "constant weight" not in told, "the same weight, stored as integers"


def test_results_of_two_backends() -> None:
    told = changes(quantfx.diff(result(), result(backend="native")), "second/conv2d")
    kernel = told["kernel"]
    assert kernel.after == "quantized.conv2d"
    assert kernel.before not in ("", kernel.after)
    assert not quantfx.diff(result(), result()).rows


def test_the_value_is_plain_data_and_a_drawing() -> None:
    diff = quantfx.diff(captured(), captured(extra=True))
    data = json.loads(json.dumps(diff.as_dict()))
    assert data["same"] == diff.same
    assert data["rows"][0]["change"] in ("appeared", "changed")
    text = diff.to_dot()
    assert text == quantfx.diff(captured(), captured(extra=True)).to_dot()
    (line,) = [each for each in text.splitlines() if each.strip().startswith('"extra/conv2d" [')]
    assert "appeared" in line
    gone = quantfx.diff(captured(extra=True), captured()).to_dot()
    assert '"gone extra/conv2d" [class="kernel vanished"' in gone
    if which("dot") is None:
        pytest.skip("Graphviz's dot is not installed")
    for each in (text, gone):
        subprocess.run(["dot", "-Tsvg"], input=each.encode(), check=True, capture_output=True)


def test_what_is_far_from_changes_is_collapsed() -> None:
    same = [nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.Softplus()]
    a = quantfx.capture(nn.Sequential(*same, nn.GELU(), nn.Tanh()).eval(), X)
    b = quantfx.capture(nn.Sequential(*same, nn.GELU(), nn.Sigmoid()).eval(), X)
    text = quantfx.diff(a, b).to_dot()
    assert "4 ops: 1 relu, 1 sigmoid, 1 softplus, 1 tanh" in text
    assert '"4/gelu"' in text, "what a change reads is drawn"
    assert '"0/relu"' not in text


def test_a_difference_is_drawn_into_a_file(tmp_path: Path) -> None:
    diff = quantfx.diff(captured(), captured(extra=True))
    path = quantfx.draw(diff, tmp_path / "diff.dot")
    assert path.read_text(encoding="utf-8") == diff.to_dot()
    with refused("not-offered", site="draw"):
        quantfx.draw(diff, tmp_path / "diff.dot", depth=1)


def test_what_is_no_graph_is_refused() -> None:
    with refused("wrong-type", fix="quantfx.capture"):
        quantfx.diff(nn.Linear(1, 1), captured())  # type: ignore[arg-type]
