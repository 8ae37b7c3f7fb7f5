"""prepare_qat_pt2e beside torchao's: bit-equal where that keeps eps, and right where it does not."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.functional import conv2d
from torchao.quantization.pt2e import move_exported_model_to_eval, qat_utils, quantize_pt2e
from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as torchao_quantizer

from quantfx import compat
from quantfx.compat.terms.specs import ANNOTATION_KEY
from quantfx.passes.errors import ArgumentError
from quantfx.patterns.loader import load
from quantfx.tools.models.mobilenet_v2 import STAGES, mobilenet_v2
from quantfx.tools.models.resnet import resnet18
from tests import torchao_reference
from tests.compat.sample import DQ, DQ_CHANNEL, Q, aten, count, find
from tests.models.normed import NORMED, image, norm2d, normed
from tests.refusals import refused

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(2, 3, 32, 32, generator=GENERATOR)

NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "resnet18": (lambda: resnet18((1, 1), width=8), IMAGES),
    "mobilenet_v2": (lambda: mobilenet_v2(STAGES[:2], last=32), IMAGES),
} | {name: (lambda name=name: normed(name)[0], x) for name, (_, x) in NORMED.items()}


class Torchao:
    """torchao's functions under one name."""

    prepare_qat_pt2e = staticmethod(quantize_pt2e.prepare_qat_pt2e)
    convert_pt2e = staticmethod(torchao_reference.convert)
    move_exported_model_to_eval = staticmethod(move_exported_model_to_eval)


def exported(model: nn.Module, x: Tensor) -> GraphModule:
    module = torch.export.export(copy.deepcopy(model), (x,), strict=True).module()
    assert isinstance(module, GraphModule)
    return module


def quantizer(**options: bool) -> Any:
    config = compat.get_default_x86_inductor_quantization_config(is_qat=True, **options)
    return compat.X86InductorQuantizer().set_global(config)


def default_eps(model: nn.Module) -> nn.Module:
    """Return ``model`` with the eps and momentum that torchao's rewrite puts in place of others."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            module.eps, module.momentum = 1e-5, 0.1
    return model


def results(library: Any, quantizer: Any, model: nn.Module, x: Tensor) -> list[Any]:
    """Return two training results, that of evaluation, the converted one, and counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = library.prepare_qat_pt2e(exported(model, x), quantizer)
        torch.manual_seed(0)  # of dropouts
        found = [module(x), module(x * 2)]
        library.move_exported_model_to_eval(module)
        found.append(module(x))
        converted = library.convert_pt2e(module)
    counts = [count(converted, target) for target in (Q, DQ, DQ_CHANNEL)]
    return [*found, converted(x), counts]


# torchao takes some ten seconds each; "add relu" and its like call methods, which it does not match.
PARITY = [
    "conv2d",
    *(
        pytest.param(name, marks=pytest.mark.sweep)
        for name in (
            "conv2d, no bias",
            "grouped",
            "depthwise",
            "conv1d",
            "resnet18",
            "mobilenet_v2",
        )
    ),
]


def match_two_dimensions_only(patch: pytest.MonkeyPatch) -> None:
    """Spare torchao the capture of patterns of convolutions that the network does not have."""
    for name in ("_fuse_conv_bn_qat_helper", "_fold_conv_bn_qat_helper"):

        def only(module: GraphModule, conv: Any, *rest: Any, exact: Any, **options: Any) -> Any:
            return exact(module, conv, *rest, **options) if conv is conv2d else module

        patch.setattr(qat_utils, name, partial(only, exact=getattr(qat_utils, name)))


@pytest.mark.parametrize("name", PARITY)
def test_equal_to_torchao_where_that_keeps_eps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "conv2d":
        match_two_dimensions_only(monkeypatch)
    make, x = NETWORKS[name]
    model = default_eps(make()).train()
    config = torchao_quantizer.get_default_x86_inductor_quantization_config(is_qat=True)
    foreign = torchao_quantizer.X86InductorQuantizer().set_global(config)
    theirs = results(Torchao, foreign, model, x)
    for ours in (results(compat, quantizer(), model, x), results(compat, foreign, model, x)):
        assert ours[4] == theirs[4]
        if name == "conv1d":  # torchao's recipe leaves it float, and its folding rounds otherwise
            ours[3], theirs[3] = ours[3].round(decimals=5), theirs[3].round(decimals=5)
        assert [at for at in range(4) if not torch.equal(ours[at], theirs[at])] == []


@pytest.mark.parametrize("name", NORMED)
def test_without_rounding_it_is_the_float_model(name: str) -> None:
    """torchao replaces eps = 1e-3 by 1e-5 here."""
    model, x = normed(name)
    module = compat.prepare_qat_pt2e(exported(model, x), quantizer())
    module.apply(compat.disable_fake_quant)
    for _ in range(3):
        batch = torch.randn(x.shape, generator=GENERATOR)
        assert torch.allclose(module(batch), model(batch), atol=1e-5)
    statistics = dict(module.named_buffers())
    for key, value in model.named_buffers():
        if model.frozen and key.endswith("tracked"):
            continue  # it stands still, and nothing reads it
        assert torch.allclose(statistics[key].float(), value.float(), atol=1e-5), key
    compat.move_exported_model_to_eval(module)
    assert torch.allclose(module(x), model.eval()(x), atol=1e-5)
    converted = compat.convert_pt2e(module)
    stays = name == "conv3d" or "linear" in name
    assert count(converted, aten.batch_norm.default) == count(converted, aten.add_.Tensor) == stays


def test_the_model_that_was_exported_does_not_train() -> None:
    model, x = normed("conv2d")
    module = torch.export.export(model, (x,), strict=True).module()
    assert isinstance(module, GraphModule)
    before = copy.deepcopy(model.state_dict())
    targets = [node.target for node in module.graph.nodes]
    prepared = compat.prepare_qat_pt2e(module, quantizer(), inplace=False)
    assert [node.target for node in module.graph.nodes] == targets
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.1)
    prepared(x).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not torch.equal(prepared.get_parameter("layer.weight"), before["layer.weight"])
    same = compat.prepare_qat_pt2e(module, quantizer())
    assert [n.target for n in module.graph.nodes] == [n.target for n in same.graph.nodes]


def test_modules_on_the_edges_are_the_known_fake_quantizes() -> None:
    model, x = normed("conv2d")
    module = compat.prepare_qat_pt2e(exported(model, x), quantizer())
    kinds = {n: type(m).__name__ for n, m in module.named_children() if "post_process" in n}
    assert set(kinds.values()) == {"FusedMovingAvgObsFakeQuantize"}
    [conv] = find(module, aten.conv2d.default)
    _, rounded = conv.all_input_nodes[:2]
    assert [node.target for node in rounded.all_input_nodes] == [aten.mul.Tensor]
    [norm] = find(module, aten.batch_norm.default)
    assert norm.all_input_nodes[0].target == aten.add.Tensor
    assert norm.args[7] == 1e-3
    assert ANNOTATION_KEY in norm.meta


def test_a_copy_of_the_prepared_model_converts() -> None:
    model, x = normed("add relu")
    module = compat.prepare_qat_pt2e(exported(model, x), quantizer())
    module(x)
    twin = copy.deepcopy(module)
    assert torch.equal(compat.convert_pt2e(twin)(x), compat.convert_pt2e(module)(x))


def test_dynamic_ranges() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).train()
    x = image(8)
    module = compat.prepare_qat_pt2e(exported(model, x), quantizer(is_dynamic=True))
    module(x).sum().backward()
    converted = compat.convert_pt2e(module)
    assert count(converted, torch.ops.quantized_decomposed.choose_qparams.tensor) == 2
    assert (converted(x) - model(x)).abs().max() < 0.1


def test_what_is_no_graph_is_refused() -> None:
    with refused("not-a-graph", ArgumentError):
        compat.prepare_qat_pt2e(nn.Linear(2, 2), quantizer())  # type: ignore[arg-type]


def test_transposed_convolutions_are_scaled_along_their_output_channels() -> None:
    torch.manual_seed(0)
    norm = norm2d(5)
    nn.init.normal_(norm.weight)
    model = nn.Sequential(nn.ConvTranspose2d(3, 5, 3), norm).train()
    x = image(3, 6, 6)
    config = compat.get_default_x86_inductor_quantization_config(is_qat=True)

    class Transposed(compat.Quantizer):
        def annotate(self, model: GraphModule) -> GraphModule:
            for node in find(model, aten.conv_transpose2d.input):
                specs = {node.all_input_nodes[0]: config.input_activation}
                node.meta[ANNOTATION_KEY] = compat.QuantizationAnnotation(specs, _annotated=True)
            return model

        def validate(self, model: GraphModule) -> None:
            pass

    module = compat.prepare_qat_pt2e(exported(model, x), Transposed())
    module.apply(compat.disable_fake_quant)
    assert count(module, aten.sqrt.default) == 1
    assert torch.allclose(module(x), model(x), atol=1e-5)
    compat.move_exported_model_to_eval(module)
    expected = module(x)
    module.apply(compat.enable_fake_quant)
    converted = compat.convert_pt2e(module)
    assert count(converted, aten.batch_norm.default) == 0
    assert torch.allclose(converted(x), expected, atol=0.1)
    assert load("qat_pt2e").names == ("conv_bn", "conv_transpose_bn")
