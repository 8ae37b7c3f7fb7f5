"""Whole networks on the native backend, against float and against torch 2.13's FX graph mode."""

from __future__ import annotations

import copy
import functools
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
from quantfx.passes.config.config import Config
from quantfx.tools.measure.metrics import sqnr_db
from quantfx.tools.models.resnet import resnet18
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.models.sequences import Recommender, SpeakerEncoder, Tagger, trained_speaker_encoder

DYNAMIC = Config("dynamic")
TABLES = DYNAMIC.op("embedding", "weight-only")


def frames(rows: int, steps: int = 30) -> Tensor:
    """Return frames like those of speech: positive, and slow from one to the next."""
    noise = torch.randn(rows, steps, 40, generator=torch.Generator().manual_seed(0))
    return noise.cumsum(1).abs() / 60


# Model, inputs and config of the networks that several tests look at, which change nothing.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], Any]] = {
    "resnet": (
        lambda: resnet18(classes=100),
        lambda: torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
        "static",
    ),
    "speaker": (SpeakerEncoder, lambda: frames(4), "dynamic"),
    "speaker in fp16": (lambda: SpeakerEncoder(hidden=64), lambda: frames(4), "fp16"),
    "tagger": (
        Tagger,
        lambda: torch.randint(0, 500, (6, 20), generator=torch.Generator().manual_seed(0)),
        TABLES,
    ),
}


@functools.cache
def network(name: str) -> tuple[nn.Module, Tensor, quantfx.Result]:
    """Return one of them, its input, and what our backend makes of it."""
    make, inputs, config = NETWORKS[name]
    model, x = seeded(make), inputs()
    return model, x, by_quantfx(model, (x,), config)


def by_quantfx(model: nn.Module, inputs: tuple[Any, ...], config: Any) -> quantfx.Result:
    backend = backends.get("native", config=config)
    return unchecked.quantize(model, inputs, backend=backend)


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
    model: nn.Module,
    inputs: tuple[Any, ...],
    result: quantfx.Result,
    mapping: QConfigMapping,
    least: float,
) -> None:
    """Check that ours is at least ``least`` dB from float, and no farther than FX graph mode."""
    with torch.no_grad():
        expected, ours = model(*inputs), result.module(*inputs)
    there = sqnr_db(expected, by_fx(model, inputs, mapping))
    here = sqnr_db(expected, ours)
    print(f"{type(model).__name__}: native {here:.1f} dB, FX graph mode {there:.1f} dB")
    assert here > least
    assert here > there - 0.1


@pytest.mark.sweep  # test_native_fx_2_13.py has its rows, each by itself
def test_resnet18() -> None:
    model, x, result = network("resnet")
    check(model, (x,), result, get_default_qconfig_mapping("x86"), 20)
    kernels = [site.kernel for site in result.report.sites]
    assert kernels.count("quantized.add_relu") == 8
    assert sum("quantized.conv2d" in str(kernel) for kernel in kernels) == 20
    assert all(each.within(1, 0) for each in result.compare_sites())


def test_speaker_encoder() -> None:
    model, x, result = network("speaker")
    check(model, (x,), result, dynamic_mapping(), 20)
    assert [site.kernel for site in result.report.sites] == [
        "aten.quantized_lstm",
        "quantized.linear_relu_dynamic",
    ]


@pytest.mark.sweep
def test_speaker_encoder_with_real_weights() -> None:
    model = trained_speaker_encoder()
    if model is None:
        pytest.skip("needs `pip install --no-deps -r requirements-sweep.txt`")
    inputs = (frames(16, 160),)
    result = by_quantfx(model, inputs, "dynamic")
    check(model, inputs, result, dynamic_mapping(), 15)
    assert result.report.sites[0].kernel == "aten.quantized_lstm"


def test_recommender() -> None:
    draw = torch.Generator().manual_seed(0)
    seen = torch.randint(0, 2000, (400,), generator=draw)
    offsets = torch.arange(0, 400, 25)
    inputs = (seen, offsets, torch.randn(16, 12, generator=draw))
    model = seeded(Recommender)
    result = by_quantfx(model, inputs, DYNAMIC.op("embedding_bag", "weight-only"))
    check(model, inputs, result, dynamic_mapping(), 25)
    assert "quantized.embedding_bag_byte" in {site.kernel for site in result.report.sites}


def test_tagger() -> None:
    model, words, result = network("tagger")
    check(model, (words,), result, dynamic_mapping(), 25)
    assert [site.kernel for site in result.report.sites] == [
        "quantized.embedding_byte",
        "aten.quantized_gru",
        "quantized.linear_dynamic",
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_packed_weights_are_copied(name: str) -> None:
    _, x, result = network(name)
    module = copy.deepcopy(result.module)
    with torch.no_grad():
        expected = module(x)
        assert torch.equal(copy.deepcopy(module)(x), expected)
        assert torch.equal(module(x), expected)
