"""A layer scaled by its batch norm computes what it did, and folds into what training rounded."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node

from quantfx.backends.x86 import FINISH_TRAINING, pattern_set, x86
from quantfx.passes.draw.dot import to_dot
from quantfx.passes.errors import PassError
from quantfx.passes.layers.scaled_layer import scaled_layer_of
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.train.qat_module import QatModule
from quantfx.patterns.loader import load
from tests.models.normed import EPS, NORMED, Normed, image, norm2d, normed, round_nothing
from tests.refusals import refused
from tests.unchecked import capture

GENERATOR = torch.Generator().manual_seed(0)
BACKEND = x86()


def prepare(model: nn.Module, x: Tensor, *, learn_scales: bool = False) -> QatModule:
    graph = capture(model, (x,), training=True)
    return BACKEND.prepare(graph, qat=True, learn_scales=learn_scales)


@functools.cache
def prepared_once(name: str, learn_scales: bool) -> QatModule:
    return prepare(*normed(name), learn_scales=learn_scales)


def prepare_normed(name: str, *, learn_scales: bool = False) -> tuple[Normed, Tensor, QatModule]:
    """Return the network called ``name``, its example, and what is prepared of an equal one."""
    return (*normed(name), copy.deepcopy(prepared_once(name, learn_scales)))


def like(x: Tensor) -> Tensor:
    return torch.randn(x.shape, generator=GENERATOR)


def nearly(a: Tensor, b: Tensor) -> bool:
    """Equal to 1e-5 of the largest value."""
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max())


@pytest.mark.parametrize("scaling", [False, True])
@pytest.mark.parametrize("name", NORMED)
def test_without_rounding_it_is_the_float_model(name: str, scaling: bool) -> None:
    model, x, prepared = prepare_normed(name)
    assert sum(scaled_layer_of(node) is not None for node in prepared.graph.nodes) == 1
    if scaling:
        round_nothing(prepared)
    else:
        prepared.fake_quantize(False)
    for _ in range(3):
        batch = like(x)
        assert nearly(prepared(batch), model(batch))
    statistics = dict(prepared.named_buffers())
    for key, value in model.named_buffers():
        if value.is_floating_point():
            assert nearly(statistics[key], value), key
        elif not model.frozen:  # else the counter stands still, and nothing reads it
            assert torch.equal(statistics[key], value), key
    assert nearly(prepared.eval()(x), model.eval()(x))


@pytest.mark.parametrize("name", NORMED)
def test_gradients_without_rounding_are_the_float_models(name: str) -> None:
    model, x, prepared = prepare_normed(name)
    round_nothing(prepared)
    wanted = like(model(x))
    for module in (model, prepared):
        (module(x) * wanted).sum().backward()
    given = dict(prepared.named_parameters())
    largest = max(p.grad.abs().max() for p in model.parameters() if p.grad is not None)
    for key, parameter in model.named_parameters():
        ours, theirs = given[key].grad, parameter.grad
        assert ours is not None
        assert theirs is not None
        assert (ours - theirs).abs().max() <= 1e-5 * largest, key


@pytest.mark.parametrize("learn_scales", [False, True])
@pytest.mark.parametrize("name", NORMED)
def test_conversion_is_the_evaluation_of_what_was_trained(name: str, learn_scales: bool) -> None:
    model, x, prepared = prepare_normed(name, learn_scales=learn_scales)
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.01)
    for _ in range(4):
        optimizer.zero_grad()
        prepared(like(x)).square().mean().backward()
        optimizer.step()
    expected = prepared.eval()(x)
    state = copy.deepcopy(prepared.state_dict())
    quantized = BACKEND.convert(prepared)
    assert nearly(quantized(x), expected)
    assert not torch.equal(expected, model.eval()(x))
    assert all(torch.equal(value, prepared.state_dict()[key]) for key, value in state.items())
    assert not [p for p in quantized.parameters() if p.requires_grad]


@pytest.mark.parametrize("name", NORMED)
def test_the_converted_graph_is_that_of_calibration(name: str) -> None:
    model, x, trained = prepare_normed(name)
    trained(x)
    calibrated = BACKEND.prepare(capture(model.eval(), (x,)))
    calibrate(calibrated, [x])
    assert to_dot(BACKEND.convert(trained)) == to_dot(BACKEND.convert(calibrated))


@pytest.mark.parametrize("name", NORMED)
def test_folding_keeps_the_float_function(name: str) -> None:
    model, x, prepared = prepare_normed(name)
    prepared.fake_quantize(False)
    for module in (model, prepared):
        module(x)  # the statistics move
    folded = FINISH_TRAINING.run(prepared)
    norms = folded.graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default)
    assert not norms
    assert nearly(folded.eval()(x), model.eval()(x))


def test_a_channel_with_a_small_gamma_keeps_its_bits() -> None:
    """Under the floor that scales have in calibration, 2^-12, it would be rounded to zero."""
    model, x = normed("conv2d")
    model.norm.weight.data[0] = 1e-6
    prepared = prepare(model, x)
    prepared(x).square().sum().backward()
    weight, gamma = (prepared.get_parameter(f"{n}.weight").grad for n in ("layer", "norm"))
    assert weight is not None
    assert gamma is not None
    assert weight[0].any()
    assert gamma[0] != 0
    integers = BACKEND.convert(prepared).get_buffer("layer.weight_s8")[0].int()  # |-128| is 128
    assert integers.abs().max() >= 127


def test_no_gradient_runs_through_the_scale() -> None:
    """Gamma gets that of the batch norm alone, as if the rounded weight did not depend on it."""
    model, x, prepared = prepare_normed("conv2d")
    wanted = like(model(x))
    (prepared(x) * wanted).sum().backward()
    gradient = prepared.get_parameter("norm.weight").grad
    [norm] = prepared.graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default)
    read: list[Tensor] = []

    class Reads(Interpreter):
        def run_node(self, n: Node) -> Any:
            if n is norm:
                read.append(self.fetch_args_kwargs_from_env(n)[0][0].detach())
            return super().run_node(n)

    Reads(prepared).run(x)
    normalized = nn.functional.batch_norm(read[0], None, None, training=True, eps=EPS)
    assert gradient is not None
    assert torch.allclose(gradient, (normalized * wanted).sum((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_every_template_is_another_one_once_its_batch_norm_is_folded() -> None:
    plain = {v.label: v for t in (pattern_set(plans=True)).templates for v in t.variants()}
    for template in load("qat").templates:
        for variant in template.variants():
            folded = plain[variant.label.replace("_bn", "")]
            assert folded.template.kernel == template.kernel
            assert folded.template.mode == template.mode
            assert folded.template.quant == template.quant
            ours = [node.ops for node in variant.nodes if node.name != "bn"]
            assert ours == [node.ops for node in folded.nodes]


class TwoReaders(nn.Module):
    """One convolution's weight under two batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.left, self.right = nn.Conv2d(3, 6, 3), norm2d(6), norm2d(6)
        nn.init.normal_(self.left.weight)
        nn.init.normal_(self.right.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(self.conv(x)).relu() - self.right(self.conv(x.sin())).relu()


class CalledTwice(nn.Module):
    """A convolution and a batch norm called twice, the second time before the first is done."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3), norm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.conv(x), self.conv(x.sin())
        return self.norm(left).relu() - self.norm(right).relu()


@pytest.mark.parametrize("kind", [TwoReaders, CalledTwice])
def test_shared_weights_are_scaled_for_each_reader(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = kind().train(), image(3, 8, 8)
    prepared = prepare(model, x)
    assert sum(scaled_layer_of(node) is not None for node in prepared.graph.nodes) == 2
    round_nothing(prepared)
    for _ in range(3):
        batch = like(x)
        assert nearly(prepared(batch), model(batch))
    prepared.fake_quantize(True)
    prepared(x)
    expected = prepared.eval()(x)
    assert nearly(BACKEND.convert(prepared)(x), expected)


class Unfused(nn.Module):
    """Batch norms that are no layer's alone: of an input, of a shared result, without statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv, self.norm = norm2d(3), nn.Conv2d(3, 6, 3), norm2d(6)
        self.last, self.batch = nn.Conv2d(6, 4, 3), norm2d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.first(x))
        return self.batch(self.last(y + self.norm(y)))


def test_other_batch_norms_stay_and_train() -> None:
    torch.manual_seed(0)
    model, x = Unfused().train(), image(3, 8, 8)
    prepared = prepare(model, x)
    assert not [node for node in prepared.graph.nodes if scaled_layer_of(node)]
    prepared.fake_quantize(False)
    for _ in range(3):
        batch = like(x)
        assert torch.equal(prepared(batch), model(batch))
    prepared.fake_quantize(True)
    prepared(x)
    expected = prepared.eval()(x)
    quantized = BACKEND.convert(prepared)
    assert nearly(quantized(x), expected)
    norms = quantized.graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default)
    assert [node.args[5] for node in norms] == [False, False, True]


def test_gamma_leaves_zero() -> None:
    """A channel that is multiplied by 0 is rounded unscaled, so that gamma has a gradient."""
    model, x, prepared = prepare_normed("zero gamma")
    (prepared(x) * like(model(x))).sum().backward()
    gradient = prepared.get_parameter("norm.weight").grad
    assert gradient is not None
    assert bool((gradient[::2].abs() > 0.1).all())
    quantized = BACKEND.convert(prepared)
    assert not quantized.get_buffer("layer.weight_s8")[::2].any()


def test_rounding_goes_by_the_weight_that_is_folded() -> None:
    """The scale before rounding is that of the running variance: grids follow gamma's sign too."""
    model, x, prepared = prepare_normed("conv2d")
    prepared.eval()
    calibrate(prepared, [x])
    quantized = BACKEND.convert(prepared)
    state = model.state_dict()
    by_channel = state["norm.weight"] / torch.sqrt(state["norm.running_var"] + EPS)
    folded = state["layer.weight"] * by_channel.reshape(-1, 1, 1, 1)
    scale = folded.abs().amax((1, 2, 3)) / 127.5
    assert torch.allclose(quantized.get_buffer("layer.weight_scale"), scale, rtol=1e-6)
    integers = torch.round(folded / scale.reshape(-1, 1, 1, 1)).clamp(-128, 127)
    difference = quantized.get_buffer("layer.weight_s8") - integers
    assert difference.abs().max() <= 1
    assert (difference != 0).float().mean() < 0.01  # ties


def test_a_pass_that_takes_the_batch_norm_away_is_named() -> None:
    _, x, prepared = prepare_normed("conv2d")
    prepared(x)
    [norm] = prepared.graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default)
    norm.replace_all_uses_with(norm.args[0])
    prepared.graph.erase_node(norm)
    with refused("pass-order", PassError, site="fold-qat-conv-bn", says="batch_norm"):
        BACKEND.convert(prepared)
