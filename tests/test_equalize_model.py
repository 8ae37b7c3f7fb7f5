"""A model with even channels in front of quantization, and what becomes of it there."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.fx import GraphModule
from torch.utils.data import DataLoader, TensorDataset

import quantfx
from quantfx.passes.errors import CalibrationError, PipelineError
from quantfx.passes.graph.remark import Remark
from quantfx.passes.graph.scopes import module_scope
from quantfx.passes.pipeline.record import remarks_of
from quantfx.tools.measure.metrics import sqnr_db
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.models.vit import ViT
from tests.passes.observe.equalize.pair_models import IMAGE, data
from tests.passes.observe.equalize.pair_models import images as pair
from tests.refusals import refused

CHANNELS = 16


def network() -> nn.Module:
    """Convolutions between which channels differ by a factor of 64, which the next one undoes."""

    def make() -> nn.Module:
        layers: list[nn.Module] = []
        for inputs, groups in ((3, 1), (CHANNELS, CHANNELS), (CHANNELS, 1)):
            layer = nn.Conv2d(inputs, CHANNELS, 3, padding=1, groups=groups, bias=False)
            layers += [layer, nn.BatchNorm2d(CHANNELS), nn.ReLU()]
        pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10))
        return nn.Sequential(nn.Sequential(*layers), *pool)

    model = seeded(make)
    factor = 2.0 ** torch.linspace(-3, 3, CHANNELS)
    for first, second in (("0.1", "0.3"), ("0.4", "0.6"), ("0.7", "3")):
        for tensor in model.get_submodule(first).parameters():
            tensor.data.mul_(factor)
        (weight, *_) = model.get_submodule(second).parameters()
        axis = 1 if weight.shape[1] > 1 else 0  # a depthwise convolution has one input each
        weight.data.div_(factor.reshape(-1, *[1] * (weight.dim() - 1 - axis)))
    return model


def images(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


BATCHES = list(torch.split(images(64), 16))


def equalize(**options: object) -> GraphModule:
    chosen: dict[str, object] = {"rows": 8, "progress": False}
    return quantfx.equalize(network(), BATCHES[0], BATCHES, **(chosen | options))  # type: ignore[arg-type]


def test_quantizing_gains_by_it() -> None:
    model, test = network(), images(64, seed=9)
    equalized = equalize()
    with torch.no_grad():
        exact = model(test)
        torch.testing.assert_close(equalized(test), exact, rtol=1e-5, atol=1e-5)
        found = [
            sqnr_db(
                exact, unchecked.quantize(each, BATCHES[0], calibration=BATCHES).quantized(test)
            )
            for each in (model, equalized)
        ]
    assert found[1] > found[0] + 5, found


def test_the_records_tell_of_each_pair() -> None:
    told = [each.message for each in remarks_of(equalize(), Remark, "equalize-layers")]
    assert [each.partition(":")[0] for each in told] == [
        "conv2d -> conv2d_1",
        "conv2d_1 -> conv2d_2",
        "conv2d_2 -> linear",
    ]


def test_the_result_is_quantized_as_any_model(tmp_path: Path) -> None:
    equalized = equalize()
    for copied in (copy.deepcopy(equalized), pickle.loads(pickle.dumps(equalized))):
        assert torch.equal(copied(BATCHES[1]), equalized(BATCHES[1]))
    statistics = quantfx.collect(equalized, BATCHES[0], BATCHES, progress=False)
    config = quantfx.Config().module("0.3", None)  # by the name in the user's model
    options = {"config": config, "backend": quantfx.backends.get("x86", repair=True)}
    result = quantfx.quantize(equalized, BATCHES[0], statistics=statistics, **options)  # type: ignore[arg-type]
    direct = quantfx.quantize(equalized, BATCHES[0], calibration=BATCHES, progress=False, **options)  # type: ignore[arg-type]
    assert torch.equal(result.quantized(BATCHES[1]), direct.quantized(BATCHES[1]))
    planned = {each.site.node for each in result.report.sites}
    assert planned >= {"conv2d", "conv2d_2", "linear"}
    assert "conv2d_1" not in planned
    result.save(tmp_path / "equalized.pt2")
    again = quantfx.load(tmp_path / "equalized.pt2")
    for rows in (1, 16, 5):  # the number of rows is free as it was
        assert torch.equal(again.quantized(images(rows)), result.quantized(images(rows)))


def test_modules_keep_their_names() -> None:
    plain = {module_scope(n) for n in unchecked.capture(network(), BATCHES[0]).graph.nodes}
    found = {module_scope(node) for node in equalize().graph.nodes}
    assert plain - found == {"0.1", "0.4", "0.7"}, "batch norms are folded"
    assert found <= plain


def test_free_sizes_stay_free() -> None:
    free = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    equalized = equalize(dynamic_shapes=({**free},))
    x = torch.randn(3, 3, 20, 9)
    with torch.no_grad():
        exact = network()(x)
    torch.testing.assert_close(equalized(x), exact, rtol=1e-5, atol=1e-5)
    result = unchecked.quantize(equalized, BATCHES[0], calibration=BATCHES)
    assert result.quantized(x).shape == exact.shape


def test_batches_come_as_for_calibrate() -> None:
    loader = DataLoader(TensorDataset(torch.cat(BATCHES), torch.zeros(64)), batch_size=16)
    model = network()
    given = quantfx.equalize(
        model, BATCHES[0], loader, input_fn=lambda batch: batch[0], rows=8, progress=False
    )
    for value, same in zip(
        given.state_dict().values(), equalize().state_dict().values(), strict=True
    ):
        assert torch.equal(value, same)
    with refused("no-batches", CalibrationError):
        quantfx.equalize(model, BATCHES[0], [])
    with refused("input-dtype", CalibrationError):
        quantfx.equalize(model, BATCHES[0], [BATCHES[0].double()])


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_alpha_is_checked_before_anything_runs(alpha: float) -> None:
    with refused("number-range", PipelineError, site="alpha"):
        quantfx.equalize(network(), BATCHES[0], [], alpha=alpha)


def test_layer_norms_of_a_transformer() -> None:
    model = seeded(lambda: ViT(2, 32, 4, 16, 8, 10))
    for each in model.modules():
        if isinstance(each, nn.LayerNorm):
            each.weight.data.mul_(2.0 ** torch.linspace(-3, 3, 32))
    x = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    equalized = quantfx.equalize(model, x, [x], rows=8, progress=False)
    told = list(remarks_of(equalized, Remark, "equalize-layers"))
    assert [each.kind for each in told] == ["applied"] * 5, told
    with torch.no_grad():
        torch.testing.assert_close(equalized(x), model(x), rtol=1e-5, atol=1e-5)


class Branches(nn.Module):
    """One of two pairs of layers, by the sign of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.positive, self.negative = pair(), pair()

    def forward(self, x: Tensor) -> Tensor:
        chosen: Tensor = torch.cond(x.sum() > 0, self.positive, self.negative, (x,))
        return chosen


@pytest.mark.sweep
def test_branches_are_equalized_if_the_data_reaches_them() -> None:
    model, x = Branches().eval(), data(IMAGE).abs()
    one = quantfx.equalize(model, x, [x], rows=8, progress=False)
    assert _told(one) == [("true_graph_0", "applied"), ("false_graph_0", "missed")]
    both = quantfx.equalize(model, x, [x, -x], rows=8, progress=False)
    assert _told(both) == [("true_graph_0", "applied"), ("false_graph_0", "applied")]
    with torch.no_grad():
        for given in (x, -x):
            torch.testing.assert_close(both(given), model(given), rtol=1e-5, atol=1e-5)
    backend = quantfx.backends.get("x86")
    prepared = backend.prepare(both)
    quantfx.calibrate(prepared, [x, -x], progress=False)
    assert backend.convert(prepared)(x).shape == model(x).shape


def _told(graph: GraphModule) -> list[tuple[str, str]]:
    found = remarks_of(graph, Remark, "equalize-layers")
    return [(each.graph, each.kind) for each in found]
