"""Whole networks on the native backend, against float and against torch 2.13's FX graph mode."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import (
    QConfigMapping,
    default_dynamic_qconfig,
    float_qparams_weight_only_qconfig,
    get_default_qconfig_mapping,
)
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

import quantfx
from quantfx import backends
from quantfx.passes.config import Config
from quantfx.tools.metrics import sqnr_db
from quantfx.tools.resnet import resnet18
from quantfx.tools.seeded import seeded
from tests.models.sequences import Recommender, SpeakerEncoder, Tagger, trained_speaker_encoder

DYNAMIC = Config("dynamic")
TABLES = DYNAMIC.op("embedding", "weight-only")


def by_quantfx(model: nn.Module, inputs: tuple[Any, ...], config: Any) -> quantfx.Result:
    backend = backends.get("native", target="host", config=config)
    return quantfx.quantize(
        *(model, inputs),
        calibration=[inputs],
        backend=backend,
        input_fn=lambda batch: batch,
        progress=False,
    )


def by_fx(model: nn.Module, inputs: tuple[Any, ...], mapping: QConfigMapping) -> Tensor:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        prepared: Any = prepare_fx(copy.deepcopy(model), mapping, inputs)
        prepared(*inputs)
        converted: Tensor = convert_fx(prepared)(*inputs)
    return converted


def dynamic_mapping() -> QConfigMapping:
    table: Any = float_qparams_weight_only_qconfig
    mapping = QConfigMapping().set_global(default_dynamic_qconfig)
    return mapping.set_object_type(nn.Embedding, table).set_object_type(nn.EmbeddingBag, table)


def check(
    model: nn.Module, inputs: tuple[Any, ...], config: Any, mapping: QConfigMapping, least: float
) -> quantfx.Result:
    """Check that ours is at least ``least`` dB from float, and no farther than FX graph mode."""
    result = by_quantfx(model, inputs, config)
    with torch.no_grad():
        expected, ours = model(*inputs), result.module(*inputs)
    there = sqnr_db(expected, by_fx(model, inputs, mapping))
    here = sqnr_db(expected, ours)
    print(f"{type(model).__name__}: native {here:.1f} dB, FX graph mode {there:.1f} dB")
    assert here > least
    assert here > there - 0.1
    return result


def frames(rows: int, steps: int = 30) -> Tensor:
    """Return frames like those of speech: positive, and slow from one to the next."""
    noise = torch.randn(rows, steps, 40, generator=torch.Generator().manual_seed(0))
    return noise.cumsum(1).abs() / 60


def test_resnet18() -> None:
    model = seeded(lambda: resnet18(classes=100))
    x = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    result = check(model, (x,), "static", get_default_qconfig_mapping("x86"), 20)
    kernels = [site.kernel for site in result.report.sites]
    assert kernels.count("quantized.add_relu") == 8
    assert sum("quantized.conv2d" in str(kernel) for kernel in kernels) == 20
    assert all(each.within(1, 0) for each in result.compare_sites())


def test_speaker_encoder() -> None:
    model = seeded(SpeakerEncoder)
    result = check(model, (frames(4),), "dynamic", dynamic_mapping(), 20)
    assert [site.kernel for site in result.report.sites] == [
        "aten.quantized_lstm",
        "quantized.linear_relu_dynamic",
    ]


@pytest.mark.sweep
def test_speaker_encoder_with_real_weights() -> None:
    model = trained_speaker_encoder()
    if model is None:
        pytest.skip("needs `pip install --no-deps -r requirements-sweep.txt`")
    result = check(model, (frames(16, 160),), "dynamic", dynamic_mapping(), 15)
    assert result.report.sites[0].kernel == "aten.quantized_lstm"


def test_recommender() -> None:
    draw = torch.Generator().manual_seed(0)
    seen = torch.randint(0, 2000, (400,), generator=draw)
    offsets = torch.arange(0, 400, 25)
    inputs = (seen, offsets, torch.randn(16, 12, generator=draw))
    result = check(
        seeded(Recommender),
        inputs,
        DYNAMIC.op("embedding_bag", "weight-only"),
        dynamic_mapping(),
        25,
    )
    assert "quantized.embedding_bag_byte" in {site.kernel for site in result.report.sites}


def test_tagger() -> None:
    words = torch.randint(0, 500, (6, 20), generator=torch.Generator().manual_seed(0))
    result = check(seeded(Tagger), (words,), TABLES, dynamic_mapping(), 25)
    assert [site.kernel for site in result.report.sites] == [
        "quantized.embedding_byte",
        "aten.quantized_gru",
        "quantized.linear_dynamic",
    ]


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (SpeakerEncoder, "dynamic"),
        (SpeakerEncoder, "fp16"),
        (Tagger, TABLES),
        (resnet18, "static"),
    ],
)
def test_packed_weights_are_copied(make: Callable[[], nn.Module], config: Any) -> None:
    model = seeded(make)
    inputs: dict[Any, Tensor] = {
        SpeakerEncoder: frames(2),
        Tagger: torch.randint(0, 500, (2, 7)),
        resnet18: torch.randn(1, 3, 64, 64),
    }
    x = inputs[make]
    module = by_quantfx(model, (x,), config).module
    with torch.no_grad():
        expected = module(x)
        assert torch.equal(copy.deepcopy(module)(x), expected)
        assert torch.equal(module(x), expected)
