"""Numbers of each site: against sums computed by hand, and for faults that were put in."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter

import quantfx
from quantfx import Config, Result, backends
from quantfx.passes.draw.dot import to_dot, to_overview_dot
from quantfx.passes.graph.clone import clone, recompile, set_tensor
from quantfx.passes.graph.graphs import Site
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.quant.qdq import tensor_qparams
from quantfx.passes.report.compare.compare_graphs import compare_graphs
from quantfx.passes.report.compare.diagnose import diagnose
from quantfx.passes.report.compare.lockstep import Lockstep, PartValues
from quantfx.passes.report.compare.parts import Part
from quantfx.passes.report.compare.site_numbers import RangeNumbers, SiteNumbers
from quantfx.tools.measure.metrics import sqnr_db
from quantfx.tools.models.bert import BERT_TINY, bert, bert_inputs
from quantfx.tools.models.seeded import seeded
from tests.refusals import refused
from tests.seeded_faults import swap_scales
from tests.unchecked import capture, quantize

X86 = backends.get("x86", target="avx512_vnni")


class Net(nn.Module):
    """Two convolutions with a residual sum, a pool and a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8, eps=0.1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.linear = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        x = self.norm(self.first(x)).relu()
        x = (x + self.second(x)).relu()
        return self.linear(x.mean((2, 3)))


def images(count: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def of(model: nn.Module, *, batches: list[Tensor] | None = None) -> Result:
    return quantize(model, (images(),), calibration=batches or [images()], backend=X86)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return seeded(Net)


@pytest.fixture(scope="module")
def result(net: nn.Module) -> Result:
    return of(net)


def test_numbers_of_the_whole_are_those_of_the_results(net: nn.Module, result: Result) -> None:
    batches = [images(seed=1), images(seed=2)]
    found = result.compare(batches)
    exact = torch.cat([net(x) for x in batches]).detach()
    int8 = torch.cat([result.quantized(x) for x in batches])
    assert found.calls == 2
    assert found.output is not None
    assert found.output.sqnr == pytest.approx(sqnr_db(exact, int8), abs=1e-3)
    cosine = torch.nn.functional.cosine_similarity(exact.flatten(), int8.flatten(), 0)
    assert found.output.cosine == pytest.approx(float(cosine), abs=1e-6)
    assert found.model is not None
    assert found.model.sqnr > 100


def test_first_site_has_the_error_of_its_own_alone(result: Result) -> None:
    first = result.compare([images(seed=1)]).at("conv2d")
    assert first.own == first.accumulated
    assert first.module == "first"


def test_own_error_is_that_of_the_site_quantized_alone(net: nn.Module, result: Result) -> None:
    x = images(seed=1)
    found = result.compare([x]).at("conv2d_1")
    config = Config("float").call("conv2d_1", "static")
    alone = quantize(net, (images(),), calibration=[images()], backend=X86, config=config)
    reference = X86.prepare(capture(net, (images(),)))
    exact, own = (value_of("conv2d_1", graph, x) for graph in (reference, alone.quantized))
    assert found.own is not None
    assert found.accumulated is not None
    assert found.own.sqnr == pytest.approx(sqnr_db(exact, own), abs=0.01)
    assert found.accumulated.sqnr < found.own.sqnr


def value_of(name: str, module: GraphModule, x: Tensor) -> Tensor:
    module = clone(module)
    node = next(node for node in module.graph.nodes if node.name == name)
    output = next(iter(module.graph.find_nodes(op="output")))
    output.args = ((node,),)
    recompile(module)
    with torch.no_grad():
        return Interpreter(module).run(x, enable_io_processing=False)[0]


def scaled(result: Result, tensor: str, factor: float) -> GraphModule:
    """Return the q/dq graph with another scale for what a slot such as ``conv2d.input`` reads."""
    name, _, slot = tensor.partition(".")
    module = clone(result.quantized)
    node = next(node for node in module.graph.nodes if node.name == name)
    dequantize = read_slot(node, slot)
    for each in (dequantize, dequantize.all_input_nodes[0]):
        each.update_arg(1, tensor_qparams(each).scale * factor)
    recompile(module)
    return module


@pytest.mark.parametrize(
    ("factor", "diagnosis"), [(1.0, None), (0.05, "clipped"), (20.0, "wide-range")]
)
def test_a_wrong_scale_is_named(
    net: nn.Module, result: Result, factor: float, diagnosis: str | None
) -> None:
    reference = X86.prepare(capture(net, (images(),)))
    found = compare_graphs(reference, scaled(result, "conv2d_1.input", factor), [images(seed=1)])
    worst = found.ranked()[0]
    names = {(each.name, each.tensor) for site in found.sites for each in site.diagnoses}
    if diagnosis is None:
        assert not names
    else:
        assert str(worst.site) == "conv2d_1"
        assert (diagnosis, "conv2d_1.input") in names
        assert f"conv2d_1.input │ {diagnosis}" in str(found)


def test_a_range_that_one_value_sets_is_named(net: nn.Module) -> None:
    x = images(16)
    x[0, 0, 0, 0] = 300.0
    config = Config("static").activations(observer="min_max")
    outlier = quantize(net, (images(),), calibration=[x], backend=X86, config=config)
    (found,) = outlier.compare([x]).at("conv2d").diagnoses
    assert (found.name, found.tensor) == ("outlier", "conv2d.input")
    assert 'Config.tensor("conv2d.input", "float")' in found.remedy
    healed = config.tensor("conv2d.input", "float")
    better = quantize(net, (images(),), calibration=[x], backend=X86, config=healed)
    before, after = (each.compare([images(seed=1)]) for each in (outlier, better))
    assert after.output is not None
    assert before.output is not None
    assert after.output.sqnr > before.output.sqnr + 3


def test_an_outlier_that_is_not_in_the_batches_is_thought_of() -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2)))
    x = images(16)
    x[0, 0, 0, 0] = 300.0
    found = of(model, batches=[x]).compare([images()])
    for site in ("conv2d", "max_pool2d"):
        (diagnosis,) = found.at(site).diagnoses
        assert diagnosis.name == "wide-range"
        assert "an outlier or different data in calibration may have set" in diagnosis.message
        assert diagnosis.remedy.startswith("calibrate with data like this")


def test_another_model_is_refused(result: Result) -> None:
    other = seeded(Net)
    other.second = nn.Conv2d(8, 1, 3, padding=1).eval()  # which the sum broadcasts
    with refused("other-model", site="conv2d_1", fix="the model that the result was made of"):
        result.compare([images()], model=other)


def test_nothing_that_can_be_asked_for_is_cut_off(net: nn.Module) -> None:
    config = Config("static").tensor("conv2d.input", observer="min_max")
    x = images(16) + 300 * (torch.arange(16) == 0).view(16, 1, 1, 1)
    made = quantize(net, (images(),), calibration=[x], backend=X86, config=config)
    console = Console(width=60, color_system=None)
    with console.capture() as caught:
        console.print(made.compare([images()]))
    text = caught.get()
    assert "…" not in text
    rows = [line.split("│") for line in text.splitlines() if line.startswith("│")]
    last = "".join(cell[-2].strip() for cell in rows)
    assert 'Config.tensor("conv2d.input","float")' in last.replace(" ", "")


def test_what_shares_a_range_that_clips_is_named() -> None:
    numbers = RangeNumbers("a.input", "x", 1.0, 0, 1000, 0.5, 1.0, 1.0, 1.0, 0, 0, ("mul_2",))
    site = SiteNumbers(Site("", "a"), "linear", "", "static", None, None, (numbers,), ())
    (diagnosis,) = diagnose(site)
    assert diagnosis.message.endswith("lie outside the range; mul_2 share it")


class Cat(nn.Module):
    """A small and a large tensor in one range."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        return self.last(torch.cat([self.small(x).relu(), self.large(x).relu()], 1))


def test_a_range_shared_with_a_larger_tensor_is_named() -> None:
    model = seeded(Cat)
    with torch.no_grad():
        for each in model.small.parameters():
            each.mul_(0.01)
    found = of(model).compare([images(seed=1)])
    wide = [each for site in found.sites for each in site.diagnoses if each.name == "wide-range"]
    assert any(each.tensor == "cat.tensors.0" and "relu_1" in each.message for each in wide)


def test_weights_of_wrong_scales_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = seeded(Net)
    right = of(model).compare([images(seed=1)])
    swap_scales(monkeypatch, "linear")
    wrong = of(model).compare([images(seed=1)])
    assert [each.name for each in wrong.at("linear").diagnoses] == ["wrong-scale"]
    assert str(wrong.ranked()[0].site) == "linear"
    assert not any(site.diagnoses for site in right.sites)
    assert all(w.sqnr > w.best - 1 for site in right.sites for w in site.weights)


def test_a_lost_literal_is_named() -> None:
    model, x = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())), images()
    result = of(model)
    for node in result.quantized.graph.find_nodes(
        op="call_function", target=torch.ops.aten.conv2d.default
    ):
        node.args = (*node.args[:4], [1, 0])
    found = compare_graphs(X86.prepare(capture(model, (x,))), result.quantized, [x])
    (diagnosis,) = [each for each in found.sites[0].diagnoses if each.name == "other-literals"]
    assert "[1, 0]" in diagnosis.message


def test_a_float_pass_that_changed_the_function_is_named(net: nn.Module, result: Result) -> None:
    reference = X86.prepare(capture(net, (images(),)))
    bias = reference.get_parameter("linear.bias").detach()
    set_tensor(reference, "linear.bias", bias + 0.1)
    found = compare_graphs(reference, result.quantized, [images()], model=net)
    assert "the float graph is not the model" in str(found)
    assert "the float graph is not the model" not in str(result.compare([images()]))


def test_channels_that_hold_nothing_are_named() -> None:
    model = seeded(Net)
    with torch.no_grad():
        model.norm.weight[:5] = 0
        model.norm.bias[:5] = -1
    names = {each.name for each in of(model).compare([images()]).at("conv2d_1").diagnoses}
    assert names == {"silent-channels"}


@pytest.mark.parametrize(("per_channel", "names"), [(False, ["unequal-weights"]), (True, [])])
def test_weights_of_one_scale_and_unequal_channels_are_named(
    per_channel: bool, names: list[str]
) -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
    with torch.no_grad():
        model.get_parameter("0.weight")[0] *= 100
    (found,) = of(model).compare([images()]).sites
    weight = replace(found.weights[0], per_channel=per_channel)
    assert weight.spread > 50
    assert [each.name for each in diagnose(replace(found, weights=(weight,)))] == names


def test_nothing_is_kept_but_what_is_alive_between_operators() -> None:
    model = seeded(lambda: nn.Sequential(*(nn.Linear(8, 8) for _ in range(30))))
    x = torch.randn(37, 8)
    quantized = quantize(model, (x,), calibration=[x], backend=X86)
    reference = X86.prepare(capture(model, (x,)))
    seen: list[weakref.ref[Tensor]] = []
    most = 0

    def count(_: Part, values: PartValues) -> None:
        nonlocal most
        seen.extend(weakref.ref(each) for each in (values.exact, values.accumulated, values.own))
        most = max(most, sum(each() is not None for each in seen))

    Lockstep(reference, quantized.quantized).run(((x,), {}), count)
    assert len(seen) == 90
    assert most <= 6


def test_the_float_model_is_not_kept_alive() -> None:
    model = seeded(Net)
    result, reference = of(model), weakref.ref(model)
    assert len(result.compare([images()]).sites) == 3
    del model
    gc.collect()
    assert reference() is None
    with refused("no-float-model", fix="model=model"):
        result.compare([images()])
    assert len(result.compare([images()], model=seeded(Net)).sites) == 3


def test_a_loaded_result_compares_as_the_one_that_was_saved(
    net: nn.Module, result: Result, tmp_path: Path
) -> None:
    result.save(tmp_path / "net.quantfx")
    loaded = quantfx.load(tmp_path / "net.quantfx", backend=X86, strict=False)
    with refused("no-float-model"):
        loaded.compare([images(seed=1)])
    assert loaded.compare([images(seed=1)], model=net) == result.compare([images(seed=1)])


def test_a_transformer_has_numbers_for_every_site() -> None:
    model, inputs = bert(BERT_TINY), bert_inputs(BERT_TINY, batch=2)
    result = quantize(model, inputs, calibration=[inputs], backend=X86)
    found = result.compare([bert_inputs(BERT_TINY, batch=2, seed=1)])
    assert len(found.sites) == result.report.planned
    assert not found.left_out
    assert all(each.own is not None and each.own.sqnr > 25 for each in found.sites)
    linears = [each for each in found.sites if each.op == "linear"]
    assert all(each.weights and each.weights[0].sqnr > 30 for each in linears)


class Branches(nn.Module):
    """A linear in front of control flow, and one inside."""

    def __init__(self) -> None:
        super().__init__()
        self.outer, self.inner = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        x = self.outer(x)
        return torch.cond(x.sum() > 0, self.inner, torch.relu, (x,))


def test_sites_inside_control_flow_are_said_to_be_left_out() -> None:
    x = torch.randn(4, 8)
    result = quantize(seeded(Branches), (x,), calibration=[x, -x], backend=X86, strict=False)
    found = result.compare([x])
    assert [str(each.site) for each in found.sites] == ["linear"]
    assert any("control flow" in reason for _, reason in found.left_out)
    assert "control flow" in str(found)


def test_data_are_json_and_no_batch_is_an_error(result: Result) -> None:
    found = result.compare([images()])
    data = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert [each["site"] for each in data["sites"]] == [str(each.site) for each in found.sites]
    with refused("no-batches"):
        result.compare([])
    with refused("unknown-name", fix=""):
        found.at("conv2d_9")


def test_heat_colours_the_sites_of_the_drawing(result: Result, tmp_path: Path) -> None:
    found = result.compare([images()])
    plain, hot = (to_dot(result.quantized, heat=heat) for heat in (None, found.heat()))
    own = found.at("conv2d").own
    assert own is not None
    assert f"{own.sqnr:.1f} dB" not in plain
    assert f"{own.sqnr:.1f} dB" in hot
    red = to_dot(result.quantized, heat={"conv2d": 3.0})
    assert "#f87171" in red
    assert "#f87171" not in hot
    assert "3.0 dB at least" in to_overview_dot(result.quantized, limit=2, heat={"conv2d": 3.0})
    clash = to_dot(renamed(), heat={"conv2d": 3.0, "conv2d_1": 39.0})
    lines = {line.split('"')[1]: line for line in clash.splitlines() if " dB" in line}
    assert "3.0 dB" in lines["first/conv2d"]
    assert "39.0 dB" in lines["conv2d"]
    with refused("unknown-name", site="conv9"):
        to_dot(result.quantized, heat={"conv9": 3.0})


class Functional(nn.Module):
    """A layer, and a call: the drawing names the call as FX names the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        return nn.functional.conv2d(self.first(x), self.second.weight)


def renamed() -> GraphModule:
    return capture(Functional().eval(), (images(),))
