"""Results to save, one for each thing that a file has to keep."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

import quantfx
from quantfx import Config, Result
from quantfx.tools.models.bert import BERT_TINY, bert, bert_inputs
from quantfx.tools.models.seeded import seeded
from tests.models.decoders import tiny_gpt
from tests.models.small import cat_pool_net, residual_block

GENERATOR = torch.Generator().manual_seed(0)
IMAGE = torch.randn(2, 4, 8, 8, generator=GENERATOR)
PICTURE = torch.randn(2, 3, 8, 8, generator=GENERATOR)
ROWS = torch.randn(4, 8, generator=GENERATOR)
TOKENS = torch.arange(12).reshape(2, 6)


class Nested(nn.Module):
    """Nested inputs and outputs, one weight and bias in two layers, a counter and a cache."""

    count: Tensor
    cache: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight, self.second.bias = self.first.weight, self.first.bias
        self.register_buffer("count", torch.zeros(16))
        self.register_buffer("cache", torch.zeros(16, 8))

    def forward(self, x: dict[str, list[Tensor]], *, shift: dict[str, Any]) -> dict[str, Any]:
        self.count.add_(1)
        y = self.first(x["pair"][0]).relu() + self.second(x["pair"][1]) * shift["times"]
        self.cache[:4].copy_(y)
        ordered = collections.OrderedDict(z=y + shift["by"])
        return {"list": [y, (y * 2,)], "ordered": ordered, "none": None, "count": self.count + 0}


class Choice(nn.Module):
    """Two branches with a layer each, which share a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.yes, self.no = nn.Linear(8, 8), nn.Linear(8, 8)
        self.no.bias = self.yes.bias

    def forward(self, x: Tensor) -> Tensor:
        chosen: Tensor = torch.cond(
            x.sum() > 0, lambda x: self.yes(x), lambda x: self.no(x).relu(), (x,)
        )
        return chosen


class Autocast(nn.Module):
    """A region of another dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        with torch.autocast("cpu", torch.bfloat16):
            y = self.second(y)
        return y.float()


class Sizes(nn.Module):
    """Sizes that are computed with, that depend on data, and that are returned."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Any, ...]:
        batch = x.shape[0]
        y = self.layer(x.reshape(batch // 2 * 2, 8)).reshape(batch // 2, 2, 8)
        shown = mask.nonzero()
        return y, batch * 1.5, shown, shown.shape[0] * 2


class Tagger(nn.Module):
    """An embedding, an LSTM and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.lstm = nn.Embedding(20, 8), nn.LSTM(8, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.lstm(self.table(tokens))[0])
        return logits


def mlp() -> nn.Sequential:
    return seeded(lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)))


def quantized(model: nn.Module, *args: Any, **options: Any) -> Result:
    given: dict[str, Any] = {"calibration": [args]} | options
    return quantfx.quantize(model.eval(), args, **given)


NESTED_ARGS = ({"pair": [ROWS, ROWS + 1]},)
NESTED_KWARGS = {"shift": {"by": torch.ones(8), "times": 2}}
_MIXED = Config("static").module("2", "dynamic").op("linear", weights={"observer": "min_max"})
_TAGS = Config("static").op("lstm", "dynamic").op("embedding", "weight-only")


def _nested() -> Result:
    batch = {"x": NESTED_ARGS[0], **NESTED_KWARGS}
    options: dict[str, Any] = {"example_kwargs": NESTED_KWARGS, "calibration": [batch]}
    return quantized(seeded(Nested), *NESTED_ARGS, **options)


def _trained() -> Result:
    prepared = quantfx.prepare_qat(residual_block(), (IMAGE,), calibration=[IMAGE])
    torch.autograd.backward(prepared(IMAGE).sum())
    return quantfx.convert_qat(prepared)


def _sizes() -> Result:
    shapes = ({0: 2 * Dim("half", min=1, max=32)}, None)
    return quantized(seeded(Sizes), ROWS, torch.tensor([0, 1, 1]), dynamic_shapes=shapes)


CASES: dict[str, Callable[[], Result]] = {
    "residual": lambda: quantized(residual_block(), IMAGE),
    "cat and pools": lambda: quantized(cat_pool_net(), PICTURE),
    "any batch": lambda: quantized(residual_block(), IMAGE, dynamic_shapes=({0: Dim("b")},)),
    "any size": lambda: quantized(
        residual_block(), IMAGE, dynamic_shapes=({0: Dim.AUTO, 2: Dim.DYNAMIC},)
    ),
    "encoder": lambda: quantized(bert(BERT_TINY), *bert_inputs(BERT_TINY)),
    "decoder": lambda: quantized(tiny_gpt(2), TOKENS, dynamic_shapes=({0: Dim.AUTO, 1: Dim.AUTO},)),
    "dynamic": lambda: quantized(mlp(), ROWS, config="dynamic", dynamic_shapes=({0: Dim("b")},)),
    "fp16": lambda: quantized(mlp(), ROWS, config="fp16"),
    "weight-only": lambda: quantized(
        mlp(), ROWS, config="weight-only", dynamic_shapes=({0: Dim("b")},)
    ),
    "mixed": lambda: quantized(mlp(), ROWS, config=_MIXED),
    "nested": _nested,
    "choice": lambda: quantized(seeded(Choice), ROWS, calibration=[ROWS.abs(), -ROWS.abs()]),
    "autocast": lambda: quantized(seeded(Autocast), ROWS),
    "sizes": _sizes,
    "trained": _trained,
    "native": lambda: quantized(seeded(Tagger), TOKENS, backend="native", config=_TAGS),
    "xpu": lambda: quantized(residual_block(), IMAGE, backend="xpu"),
}
