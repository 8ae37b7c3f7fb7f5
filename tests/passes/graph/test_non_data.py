"""Position ids, masks and shape arithmetic are never observed; real activations beside them are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.backends.x86 import x86
from quantfx.passes.report.contract import find_skipped, planned_matches
from quantfx.tools.models.bert import BertConfig, bert, bert_inputs
from tests import unchecked

TOKENS = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])


class TinyOPT(nn.Module):
    """Positions as OPT computes them: a cumulative sum of a float mask, times that mask."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(16, 8)
        self.positions = nn.Embedding(8, 8)
        self.mix = nn.Linear(8, 8)
        self.register_buffer("gate", torch.ones(2, 4, 8))

    def forward(self, tokens: Tensor) -> Tensor:
        mask = torch.ones(tokens.shape)
        positions = (mask.cumsum(1) * mask).long() - 1
        x = self.tokens(tokens) + self.positions(positions)
        return self.mix(x * self.gate) * x


class Timestep(nn.Module):
    """Sinusoidal embedding of arange, read by a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(8, 8)
        self.data = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        angles = torch.arange(8, dtype=torch.float32) * 0.1
        return self.data(x) + self.time(torch.sin(angles))


def prepared(model: nn.Module, *inputs: Tensor) -> GraphModule:
    return x86().prepare(unchecked.capture(model.eval(), inputs), strict=False)


def observed(module: GraphModule) -> set[str]:
    return {node.all_input_nodes[0].name for node in module.graph.nodes if node.op == "call_module"}


def test_cumsum_and_ones_are_not_observed() -> None:
    module = prepared(TinyOPT(), TOKENS)
    assert not {name for name in observed(module) if name.startswith(("ones", "cumsum", "gate"))}
    reasons = {remark.node: remark.message for remark in find_skipped(module, x86().recipe)}
    assert "mul" not in reasons  # it picks rows of a weight, and is folded with it
    assert reasons["mul_1"] == "gate is not data: it comes from integers, masks or shapes only"
    planned = [m.annotation.template for m in planned_matches(module)]
    assert planned == ["embedding_weight_only", "linear", "mul"]


def test_a_linear_on_arange_stays_float() -> None:
    module = prepared(Timestep(), torch.randn(2, 8))
    assert [m.module for m in planned_matches(module)] == ["data"]


def test_integer_ids_and_masks_of_bert_are_not_observed() -> None:
    config = BertConfig(layers=1, hidden=32, heads=2, vocabulary=50, positions=16)
    inputs = bert_inputs(config, 2, 8)
    module = prepared(bert(config), *inputs)
    floats = [node for node in module.graph.nodes if node.op == "call_module"]
    assert floats
    for node in floats:
        assert node.meta["val"].is_floating_point()
        assert not any(p.op == "placeholder" for p in node.all_input_nodes)


def test_what_a_branch_reads_is_data_if_its_operand_is() -> None:
    from tests.export_cases import CASES

    case = CASES["cond"]
    module = x86().prepare(unchecked.capture(case.make(), case.inputs))
    assert len(planned_matches(module)) == 2


class Spectrum(nn.Module):
    """A layer behind a spectrum: complex in between."""

    def __init__(self) -> None:
        super().__init__()
        self.bins = nn.Linear(9, 8)

    def forward(self, x: Tensor) -> Tensor:
        spectra = torch.fft.rfft(x)
        twice = torch.cat([spectra * spectra, spectra])
        return self.bins(twice.abs())


class Samples(nn.Module):
    """Images and sound as they are stored, scaled inside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.nn.functional.max_pool2d(torch.cat([x, x], 0), 1)
        return self.layer(pooled.float() / 255)


class Integers(Samples):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.float())


def test_what_comes_of_complex_numbers_is_data() -> None:
    module = prepared(Spectrum(), torch.randn(4, 16))
    assert [match.module for match in planned_matches(module)] == ["bins"]
    reasons = {remark.node: remark.message for remark in find_skipped(module, x86().recipe)}
    assert reasons["mul"] == "float32: fft_rfft is complex64, not float32"
    assert reasons["cat"] == "mul holds complex64, not floats"


def test_images_and_sound_are_data_and_wider_integers_are_not() -> None:
    for dtype in (torch.uint8, torch.int8, torch.int16):
        module = prepared(Samples(), torch.ones(1, 3, 8, 8, dtype=dtype))
        assert [match.annotation.kind for match in planned_matches(module)] == ["conv2d"]
        for node in module.graph.find_nodes(op="call_module"):
            assert node.meta["val"].dtype == torch.float32
    for dtype in (torch.int32, torch.int64, torch.bool):
        model = Integers() if dtype == torch.bool else Samples()
        module = prepared(model, torch.ones(1, 3, 8, 8, dtype=dtype))
        assert not planned_matches(module)


def test_images_are_quantized_right() -> None:
    image = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    model = Samples().eval()
    result = unchecked.quantize(model, (image,))
    with torch.no_grad():
        expected = model(image)
    for got in (result.quantized(image), result.module(image)):
        assert (got - expected).norm() < 0.03 * expected.norm()
