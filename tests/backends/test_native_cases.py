"""Cases of the native backend that were wrong once."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx import backends
from quantfx.passes.config.config import Config
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.backends.fx_graph_mode import engine
from tests.refusals import refused

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    """A function of itself and the inputs, with parameters and modules by name."""

    def __init__(self, function: Callable[..., Any], **members: Any) -> None:
        super().__init__()
        self.function = function
        for name, member in members.items():
            setattr(self, name, member)
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def quantize(model: nn.Module, *inputs: Tensor, **options: Any) -> quantfx.Result:
    backend = backends.get("native", **options)
    return unchecked.quantize(model, inputs, backend=backend)


def error(result: quantfx.Result, model: nn.Module, *inputs: Tensor) -> float:
    with torch.no_grad():
        expected = model(*inputs)
        return float((result.module(*inputs) - expected).abs().max() / expected.abs().max())


def parameter(*shape: int, factor: float = 1.0) -> nn.Parameter:
    generator = torch.Generator().manual_seed(1)
    return nn.Parameter(torch.randn(shape, generator=generator) * factor)


@pytest.mark.parametrize(
    "function",
    [
        lambda s, x: torch.cat([s.p, x], 1),
        lambda s, x: torch.cat([x, s.p], 1),
        lambda s, x: torch.stack([s.p, x]),
        lambda s, x: x + (s.p + 5),
    ],
)
def test_a_stored_tensor_says_only_a_part_of_the_range(function: Callable[..., Any]) -> None:
    model = Model(function, p=parameter(4, 8, factor=0.01))
    result = quantize(model, X)
    assert error(result, model, X) < 0.02
    with torch.no_grad():
        assert torch.allclose(result.quantized(X), result.module(X), atol=0.05)


@pytest.mark.parametrize(
    "branch", [lambda h: h.relu(), lambda h: h + 1.0, lambda h: torch.cat([h, h])[:4]]
)
def test_operators_that_share_work_in_branches(branch: Callable[[Tensor], Tensor]) -> None:
    model = Model(lambda s, x: torch.cond(x.sum() > -1e9, branch, lambda h: -h, (x,)))
    backend = backends.get("native")
    result = unchecked.quantize(model, (X,), backend=backend, strict=False)
    with torch.no_grad():
        assert float((result.module(X) - model(X)).abs().max()) < 0.05


@pytest.mark.parametrize("mode", ["weight-only", "weight-only-4bit"])
def test_tables_take_indices_in_any_layout(mode: str) -> None:
    draw = torch.Generator().manual_seed(0)
    indices = torch.randint(0, 20, (4, 6), generator=draw)
    table = seeded(lambda: nn.Embedding(20, 16))
    for model in (
        Model(lambda s, i: s.e(i.t()), e=table),
        Model(lambda s, i: s.e(i[:, ::2]), e=table),
    ):
        assert error(quantize(model, indices, config=mode), model, indices) < 0.06
    bag = seeded(lambda: nn.EmbeddingBag(20, 16, mode="sum"))
    model = Model(lambda s, i, o, w: s.b(i[::2], o[::2], per_sample_weights=w[::2]), b=bag)
    inputs = (torch.randint(0, 20, (14,), generator=draw), torch.tensor([0, 9, 2, 9, 5, 9]))
    weights = torch.randn(14, generator=draw)
    assert error(quantize(model, *inputs, weights, config=mode), model, *inputs, weights) < 0.1


def test_a_table_may_be_called_with_another_layout_than_its_example() -> None:
    bag = seeded(lambda: nn.EmbeddingBag(20, 16, mode="sum"))
    model = Model(lambda s, i, o, w: s.b(i, o, per_sample_weights=w), b=bag)
    example = (torch.randint(0, 20, (7,)), torch.tensor([0, 2, 5]), torch.randn(7))
    result = quantize(model, *example, config="weight-only")
    strided = tuple(torch.stack([each, each.new_zeros(len(each))], 1)[:, 0] for each in example)
    assert not any(each.is_contiguous() for each in strided)
    with torch.no_grad():
        assert torch.equal(result.module(*strided), result.module(*example))


def test_rows_of_close_values_are_not_lost() -> None:
    table = nn.Embedding(9, 16)
    with torch.no_grad():
        table.weight.copy_(torch.arange(16.0).repeat(9, 1) * 1e-6)
    words = torch.tensor([1, 3])
    assert error(quantize(table.eval(), words, config="weight-only"), table, words) < 0.01


def test_a_bias_beyond_32_bits_is_refused_on_qnnpack() -> None:
    linear = seeded(lambda: nn.Linear(8, 8))
    with torch.no_grad():
        linear.weight[1] = 0
        linear.bias[1] = 1.0
    small = X * 0.01
    with refused("no-kernel", site="linear", says="32 bits"):
        quantize(linear, small, engine="qnnpack").module(small)
    assert error(quantize(linear, small), linear, small) < 0.02


def test_ranges_of_results_that_kernels_do_not_know_are_refused() -> None:
    config = Config("static").op("sigmoid", unit={"quant_max": 127})
    with refused("no-kernel", site="sigmoid", says=r"all of 0\.\.255|[Ff]ixed"):
        quantize(nn.Sigmoid().eval(), X, config=config).module(X)
    config = Config("static").op("prelu", prelu_weight={"observer": "min_max"})
    with refused("no-kernel", site="prelu", says="without 1"):
        quantize(nn.PReLU().eval(), X, config=config).module(X)


@pytest.mark.parametrize(
    ("model", "inputs", "config", "rule", "stored"),
    [
        (
            nn.LSTM(8, 6),
            torch.randn(5, 2, 8),
            Config("dynamic").op("lstm", rnn_weight=None),
            "nothing-to-quantize: lstm",
            "",
        ),
        (
            nn.LSTM(8, 6),
            torch.randn(5, 2, 8),
            Config("dynamic").weights(quant_min=-8, quant_max=7),
            "no-kernel: lstm",
            "-128..127",
        ),
        (
            nn.Embedding(9, 6),
            torch.tensor([1]),
            Config("weight-only").op("embedding", embedding_weight=None),
            "nothing-to-quantize: embedding",
            "",
        ),
        (
            nn.Embedding(9, 6),
            torch.tensor([1]),
            Config("weight-only").weights(quant_max=15),
            "no-kernel: embedding",
            "0..255",
        ),
        (
            nn.Embedding(9, 64),
            torch.tensor([1]),
            Config("weight-only").weights(group=32),
            "kernel-spec: embedding.weight",
            "one scale for each channel, not groups",
        ),
    ],
)
def test_rules_speak_of_weights_that_kernels_pack(
    model: nn.Module, inputs: Tensor, config: Config, rule: str, stored: str
) -> None:
    with refused(rule, says=stored):
        quantize(model.eval(), inputs, config=config).module(inputs)


def test_half_precision_holds_the_weights_or_says_so() -> None:
    model = nn.LSTM(8, 6).eval()
    weight: Any = model.weight_ih_l0
    with torch.no_grad():
        weight.mul_(1e6)
    x = torch.randn(5, 2, 8)
    with refused("no-kernel", site="lstm"):
        quantize(model, x, config="fp16").module(x)


def test_every_tensor_that_was_packed_is_watched() -> None:
    module = quantize(nn.Linear(8, 4).eval(), X).module
    with torch.no_grad():
        module(X)
        module.get_buffer("weight_scale").mul_(0.5)
        assert torch.equal(module(X), copy.deepcopy(module)(X))


def test_packing_in_threads_leaves_the_engine_alone() -> None:
    layers = nn.Sequential(*(nn.Linear(8, 8) for _ in range(8))).eval()
    modules = [quantize(layers, X, engine=name).module for name in ("x86", "qnnpack")]
    before = torch.backends.quantized.engine
    for _ in range(10):
        copies = [copy.deepcopy(module) for module in modules * 2]
        threads = [threading.Thread(target=each, args=(X,)) for each in copies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.backends.quantized.engine == before


def test_a_process_that_runs_qnnpack_gets_graphs_for_it() -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardtanh(-0.1, 0.5)).eval()
    with engine("qnnpack"):
        compared = quantize(model, images).compare_sites()
    assert all(each.within(1, 0) for each in compared)


def test_a_negative_factor_keeps_to_a_reduced_range() -> None:
    linear = seeded(lambda: nn.Linear(64, 16))
    with torch.no_grad():
        linear.weight.fill_(0.1)
    x = -(torch.rand(4, 64, generator=torch.Generator().manual_seed(0)) * 0.01 + 5)
    model = Model(lambda s, x: s.l(x * -1.0), l=linear)
    result = quantize(model, x, reduce_range=True)
    assert all(each.within(1, 0) for each in result.compare_sites())
    assert error(result, model, x) < 0.02


def test_a_known_range_does_not_pass_a_reduced_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    model = seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 4)))
    result = quantize(model, X, reduce_range=True)
    assert error(result, model, X) < 0.03
    assert all(each.within(1, 0) for each in result.compare_sites())


def test_group_norm_of_rows_stays_float() -> None:
    with refused("nothing-to-quantize", site="group_norm", says="2 dimensions.*3 or"):
        quantize(nn.GroupNorm(2, 8).eval(), X)
