"""The two calls around a training loop, from a float model to int8 kernels."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.passes.errors import CalibrationError, CaptureError, ConfigError, PipelineError
from quantfx.tools.models.bert import BERT_TINY, bert, bert_inputs
from quantfx.tools.models.digits import DigitsTransformer
from quantfx.tools.models.mobilenet_v2 import STAGES, mobilenet_v2
from quantfx.tools.models.resnet import resnet18, resnet50
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.models.normed import normed
from tests.models.small import cat_pool_net
from tests.models.vit import vit_b_16
from tests.refusals import refused

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(4, 3, 32, 32, generator=GENERATOR)
ROWS = torch.randn(4, 1, 8, 8, generator=GENERATOR)


def trained(module: quantfx.QatModule, x: Tensor, steps: int = 3) -> quantfx.QatModule:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(module(x).square().mean())
        optimizer.step()
    return module


def normed_convolution() -> nn.Module:
    conv = nn.Conv2d(1, 8, 3, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    return {
        "resnet": (seeded(lambda: resnet18((1, 1), width=8)), IMAGES),
        "transformer": (seeded(DigitsTransformer), ROWS),
        "small": (seeded(normed_convolution), ROWS),
    }


@pytest.mark.parametrize("learn_scales", [False, True])
@pytest.mark.parametrize("name", ["resnet", "transformer"])
def test_from_the_model_to_int8_kernels(name: str, learn_scales: bool) -> None:
    model, x = networks()[name]
    before = copy.deepcopy(model.state_dict())
    module = trained(unchecked.prepare_qat(model, (x,), learn_scales=learn_scales), x)
    result = quantfx.convert_qat(module)
    expected = module.eval()(x)
    largest = expected.abs().max()
    # Equal here; elsewhere a folded batch norm may round a sum to the other neighbouring integer.
    assert (result.quantized(x) - expected).abs().max() <= 0.02 * largest
    assert (result.module(x) - expected).abs().max() <= 0.05 * largest
    assert result.report.planned > 0
    assert result.report.lowered == result.report.planned
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    plain = unchecked.quantize(model, (x,))
    ours, theirs = (
        [(str(site.site), site.kernel) for site in each.report.sites] for each in (result, plain)
    )
    # Without training a table that is read at fixed places is folded.
    folded = [("embedding_2", "rows.int8")] if name == "bert" else []
    assert [each for each in ours if each not in folded] == theirs


def first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "bert": (lambda: bert(BERT_TINY), bert_inputs(BERT_TINY)),
    "vit": (lambda: vit_b_16(2, 64, 4, image=32), (IMAGES,)),
    "mobilenet": (lambda: mobilenet_v2(STAGES[:2], last=64), (IMAGES,)),
    "bottlenecks": (lambda: resnet50((1, 1), width=8), (IMAGES,)),
    "cat and pools": (cat_pool_net, (IMAGES,)),
}


SWEPT = ("vit", "bottlenecks", "mobilenet")  # whose layers the others have


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.sweep) if name in SWEPT else name for name in NETWORKS],
)
def test_networks_train_as_they_are_and_are_lowered_as_after_calibration(name: str) -> None:
    make, inputs = NETWORKS[name]
    model = make().eval()
    module = unchecked.prepare_qat(model, inputs)
    module.fake_quantize(False)
    results = []
    for each in (copy.deepcopy(model).train(), module):
        torch.manual_seed(0)
        results.append(first(each(*inputs)))
    assert torch.equal(*results)
    module.fake_quantize(True)
    torch.autograd.backward(first(module(*inputs)).square().mean())
    result = quantfx.convert_qat(module)
    plain = unchecked.quantize(model, inputs)
    ours, theirs = (
        [(str(site.site), site.kernel) for site in each.report.sites] for each in (result, plain)
    )
    # Without training a table that is read at fixed places is folded.
    folded = [("embedding_2", "rows.int8")] if name == "bert" else []
    assert [each for each in ours if each not in folded] == theirs
    expected = first(module.eval()(*inputs))
    assert (first(result.quantized(*inputs)) - expected).abs().max() <= 0.02 * expected.abs().max()


@pytest.mark.parametrize("name", ["small", pytest.param("resnet", marks=pytest.mark.sweep)])
def test_a_trained_network_compiles(name: str) -> None:
    model, x = networks()[name]
    module = trained(unchecked.prepare_qat(model, (x,)), x)
    result = quantfx.convert_qat(module)
    compiled = result.compile()
    assert result.report.compiled == result.report.planned
    with torch.no_grad():
        expected = module.eval()(x)
        assert (compiled(x) - expected).abs().max() <= 0.05 * expected.abs().max()


def test_batches_of_other_sizes_and_keyword_arguments() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 4)

        def forward(self, x: Tensor, *, scale: Tensor) -> dict[str, Tensor]:
            return {"y": self.linear(x) * scale}

    batch = torch.export.Dim("batch")
    x, scale = torch.randn(4, 8, generator=GENERATOR), torch.ones(4)
    module = quantfx.prepare_qat(
        Scaled(),
        (x,),
        example_kwargs={"scale": scale},
        dynamic_shapes={"x": {0: batch}, "scale": None},
    )
    for size in (3, 7):
        y = module(torch.randn(size, 8, generator=GENERATOR), scale=scale)["y"]
        assert y.shape == (size, 4)
    result = quantfx.convert_qat(module)
    assert result.module(x[:2], scale=scale)["y"].shape == (2, 4)


def test_calibration_comes_first_and_a_copy_converts() -> None:
    model, x = normed("relu")
    pairs = [(x, 0), (x * 2, 1)]
    module = quantfx.prepare_qat(model, (x,), calibration=pairs, input_fn=lambda pair: pair[0])
    assert module.training
    result = quantfx.convert_qat(copy.deepcopy(module))
    assert torch.equal(result.quantized(x), quantfx.convert_qat(module).quantized(x))


def test_what_was_never_seen_is_named_or_left_float() -> None:
    model, x = normed("relu")
    module = quantfx.prepare_qat(model, (x,))
    with refused("never-run", CalibrationError, site="layer (conv2d).input"):
        quantfx.convert_qat(module)
    result = quantfx.convert_qat(module, strict=False)
    assert result.report.planned == 0
    assert torch.allclose(result.quantized(x), model.eval()(x), atol=1e-5)


def test_wrong_calls_are_refused_by_name() -> None:
    model, x = normed("relu")
    with refused("no-training", PipelineError, site="xpu"):
        quantfx.prepare_qat(model, (x,), backend="xpu")
    with refused("unused-rule", ConfigError, site="module='layr'"):
        quantfx.prepare_qat(model, (x,), config=quantfx.Config().module("layr", None))
    with refused("batch-form", CaptureError, site="example_inputs"):
        quantfx.prepare_qat(model, 3)  # type: ignore[arg-type]
    with refused("not-a-model", CaptureError):
        quantfx.prepare_qat(nn.ReLU, (x,))
    graph = quantfx.capture(model.eval(), (x,))
    with refused("not-prepared", PipelineError, fix="prepare_qat"):
        quantfx.convert_qat(graph)  # type: ignore[arg-type]
