"""torch's own quantized kernels, ``torch.ops.quantized``: every row of its native BackendConfig.

Static graphs, dynamic linears and recurrent layers, half precision, and embeddings of 8 or 4 bits.
The lowered graph runs eagerly: its tensors carry their qparams, which compilers cannot handle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from quantfx.backends.backend import Backend
from quantfx.backends.checks.targets import Target, range_policy
from quantfx.backends.quantized import rows as native_rows
from quantfx.backends.quantized.carry_qparams import CarryQParams
from quantfx.backends.quantized.dynamic import NativeDynamic
from quantfx.backends.quantized.embedding import NativeEmbedding
from quantfx.backends.quantized.engines import Engines
from quantfx.backends.quantized.layers import NativeLayers
from quantfx.backends.quantized.ops import NativeOps
from quantfx.backends.quantized.patterns import pattern_set
from quantfx.backends.quantized.rnn import NativeRnn
from quantfx.backends.quantized.rows import NativeVariant
from quantfx.backends.x86 import CONVERT
from quantfx.passes.annotate.adopt_outputs import AdoptOutputs
from quantfx.passes.annotate.annotate import Annotate
from quantfx.passes.annotate.check_config import CheckConfig
from quantfx.passes.annotate.share import Share
from quantfx.passes.capture.remove_dead_code import RemoveDeadCode
from quantfx.passes.config.recipe import Recipe
from quantfx.passes.convert.repair.correct_bias import CorrectBias
from quantfx.passes.convert.repair.round_weights import RoundWeights
from quantfx.passes.convert.tidy import Tidy
from quantfx.passes.fold.compute_in_float32 import ComputeInFloat32
from quantfx.passes.fold.fold_batch_norm import FoldBatchNorm
from quantfx.passes.fold.fold_constants import FoldConstants
from quantfx.passes.lower.lower import Lower
from quantfx.passes.lower.merge_equal import MergeEqual
from quantfx.passes.lower.restore_layouts import RestoreLayouts
from quantfx.passes.observe.insert_observers import InsertObservers
from quantfx.passes.observers.fixed import FixedQParams
from quantfx.passes.observers.including import MustInclude
from quantfx.passes.pipeline.kernel_family import KernelFamily, Saturation
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.quant.scale_floor import SCALE_FLOOR, TORCH_AO_FLOOR
from quantfx.passes.quant.spec import CastSpec, Concrete, ObserverName, QuantSpec
from quantfx.passes.train.adopt_fake_quantize import AdoptFakeQuantize
from quantfx.patterns.errors import QuantfxError

# Adding or multiplying a number moves the range of the input; the kernel handles this.
SHIFTED = ("quantized.add.Scalar", "quantized.mul.Scalar")

PREPARE = Pipeline(
    (
        CheckConfig(),  # first: it identifies operators by the names that the user sees
        RemoveDeadCode(),  # before the templates: they require single users, and dead users count
        AdoptFakeQuantize(),  # before fold-batch-norm, which would otherwise take such a batch norm
        ComputeInFloat32(),  # before the templates, and before passes that fold weights in float32
        FoldConstants(),  # before fold-batch-norm and the templates, which take stored weights
        FoldBatchNorm(),  # before annotate-conv: a batch norm hides the activation behind it
        Annotate("conv"),  # layers first: an activation behind a layer belongs to it
        Annotate("linear"),
        Annotate("rnn"),
        Annotate("embedding"),
        Annotate("binary"),  # before share-qparams: the same holds for its relu
        Annotate("cat"),
        Annotate("default"),
        Annotate("batch-norm"),
        Annotate("layer-norm"),
        Annotate("fixed-qparams"),
        Annotate("share-qparams"),
        AdoptOutputs(SHIFTED),  # before share: it adds sites that must share
        Share(),  # after every annotate pass: it needs every site
        InsertObservers(),
    ),
    name="prepare",
)

EAGER = (
    "graphs of backend 'native' are of tensors that carry their qparams, which compilers do not "
    "know: run result.module as it is, or quantize with backend='x86' to compile"
)

# Two products of 255 and 64 fit a 16-bit sum, whichever weights the kernel pairs.
_ANY_TWO: dict[str, Any] = {"quant_min": -64, "quant_max": 63}
_BOUNDS: dict[Saturation, dict[str, Any]] = {
    "none": {},
    "neighbours": {"pair_bound": "blocks"},
    "any": _ANY_TWO,
}


def lower_pipeline(limits: bool, channels_first: bool = False) -> Pipeline:
    """Return the passes from the q/dq graph to kernels.

    Args:
        limits: Whether to clamp to integer ranges narrower than the dtype's.
        channels_first: Whether to lay values out channels first before clamping, for qnnpack.
    """
    return Pipeline(
        (
            Tidy(dynamic=True),  # before lower: a dequantize with two readers belongs to no match
            RestoreLayouts(),  # before lower: here, nodes have their captured layouts
            Lower(),
            CarryQParams(limits, channels_first),  # after lower, whose templates read qparams
            MergeEqual(),  # last: merges dequantizes of one tensor by several readers
        ),
        name="lower",
    )


def native(
    target: Target | None = None,
    *,
    variant: str = "native",
    engine: str | None = None,
    engines: Mapping[str, str] | None = None,
    reduce_range: bool = False,
    limits: bool = True,
    observer: ObserverName = "mse",
    weight_observer: ObserverName = "weight_mse",
) -> Backend:
    """Return the native backend.

    It uses u8 per-tensor affine activations and results, and s8 per-channel symmetric weights,
    except transposed convolutions, whose weights have one scale. Static by default; modes dynamic,
    fp16, weight-only and weight-only-4bit: see ``Backend.with_config``.

    Args:
        target: If its 16-bit sums saturate, weights are bounded and convolutions use onednn; None
            is machine-independent, with the full range.
        variant: A relative of torch's native BackendConfig: ``legacy``, with static half precision,
            or ``fbgemm``, ``x86``, ``qnnpack`` or ``onednn``, with that engine.
        engine: One of ``ENGINES``, for every operator that has it. ``x86``, the default, is onednn
            or fbgemm, whichever is right and fast; ``qnnpack`` never saturates, and is slower than
            float.
        engines: Engines of single operators, e.g. ``{"linear": "onednn"}``.
        reduce_range: Activations in [0, 127], as in torch.ao's default qconfigs for x86 and fbgemm:
            another way to keep sums from saturating, at the price of one bit.
        limits: Whether kernels clamp to that range. FX graph mode's do not: values beyond the
            calibrated range go up to 255. False gives the same integers as FX graph mode, and is
            refused on CPUs whose sums saturate.
        observer: Observer of activations.
        weight_observer: Observer of weights with many scales. ``observer="histogram"`` with
            ``"min_max"`` here does what FX graph mode does, with its floor of 2^-23 under scales.

    Raises:
        QuantfxError: there is no such engine or operator, or the operator lacks the engine.
    """
    config = _variant(variant)
    chosen = Engines.of(engine or config.engine or None, engines)
    saturation = chosen.saturates if target is not None and target.saturates else "none"
    bounded = "none" if reduce_range else saturation
    least, of_weights = _floors(observer, weight_observer, chosen)
    specs = _specs(reduce_range, bounded, (observer, least), (weight_observer, of_weights))
    name = "native" if variant == "native" else f"native-{variant}"
    recipe = Recipe.of(name, pattern_set(config), specs)
    policy = range_policy(
        target, reduce_range=reduce_range, saturates=saturation != "none", scales="bounded"
    )
    return Backend(
        name,
        recipe,
        prepare_pipeline=PREPARE,
        convert_pipeline=CONVERT.without(RoundWeights.name, CorrectBias.name),  # not measured
        lower_pipeline=lower_pipeline(limits, chosen.runs_qnnpack),
        kernels=_kernels(chosen, limits=limits, reduce_range=reduce_range),
        target=target,
        policy=policy,
        eager=EAGER,
    )


def _kernels(engines: Engines, *, limits: bool, reduce_range: bool) -> tuple[KernelFamily, ...]:
    return (
        NativeLayers(engines, limits),
        NativeDynamic(engines),
        NativeRnn(engines, reduce_range),
        NativeEmbedding(),
        NativeOps(engines, limits),
    )


def _floors(
    observer: ObserverName, weight_observer: ObserverName, engines: Engines
) -> tuple[float, float]:
    """Return the least scales of activations and of weights."""
    torch_ao = observer == "histogram" and weight_observer == "min_max"
    least = TORCH_AO_FLOOR if torch_ao else SCALE_FLOOR
    # Qnnpack stores a bias in 32 bits, in steps of the product of scales: see quantized/layers.py.
    in_32_bits = "qnnpack" in (engines.get("linear"), engines.get("conv"))
    return least, TORCH_AO_FLOOR if in_32_bits else least


def _variant(name: str) -> NativeVariant:
    found = native_rows.native_variant(name)
    if found.declared_only:
        message = f"variant '{name}' is a set of rows without kernels here"
        fix = "choose one of native, legacy, fbgemm, x86, qnnpack and onednn"
        raise QuantfxError(message, rule="no-kernels", site=name, fix=fix)
    return found


def _specs(
    reduce_range: bool,
    bounded: Saturation,
    activations: tuple[ObserverName, float],
    weights: tuple[ObserverName, float],
) -> tuple[tuple[str, Concrete], ...]:
    """Return the specs by the names that templates use; observers have a least scale."""
    observer, eps = activations
    activation = QuantSpec(torch.uint8, 0, 127 if reduce_range else 255, observer=observer, eps=eps)
    observer, eps = weights
    channels = QuantSpec(torch.int8, -128, 127, symmetric=True, axis=0, observer=observer, eps=eps)
    one_scale = replace(channels, axis=None, observer="min_max")
    is_exact = bounded == "none"
    whole = replace(activation, quant_max=255)
    row = QuantSpec(torch.uint8, 0, 255, axis=0, observer="min_max", eps=2**-100)
    return (
        ("act", activation),
        ("unit", replace(whole, observer=FixedQParams(2**-8, 0))),
        ("signed_unit", replace(whole, observer=FixedQParams(2**-7, 128))),
        ("dynamic_act", replace(activation, dynamic=True)),
        ("conv_weight", replace(channels, **_BOUNDS[bounded])),
        ("linear_weight", replace(channels, pair_bound="none" if is_exact else "adjacent")),
        ("conv_transpose_weight", replace(one_scale, **({} if is_exact else _ANY_TWO))),
        ("prelu_weight", replace(whole, observer=MustInclude(1.0))),
        ("fp16", CastSpec(torch.float16)),
        # Without VNNI its activations are in 0..127, so that nothing saturates.
        ("rnn_weight", replace(channels, observer="min_max")),
        ("embedding_weight", row),
        ("embedding_weight_4bit", replace(row, quant_max=15)),
    )
