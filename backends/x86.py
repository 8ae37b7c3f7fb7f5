"""Intel and AMD CPUs: oneDNN's int8 kernels, run eagerly or through Inductor."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Literal

import torch

from quantfx.backends.backend import Backend
from quantfx.backends.checks.targets import Target, range_policy
from quantfx.backends.direct.family import Direct
from quantfx.backends.direct.form_regions import FormRegions
from quantfx.backends.direct.runtime.library import missing
from quantfx.backends.lookup.family import Lookup
from quantfx.backends.onednn.family import OneDNN
from quantfx.backends.onednn.int8_layout import Int8Layout
from quantfx.backends.onednn.int8pack import Int8Pack
from quantfx.backends.qat import Qat
from quantfx.backends.recurrent.family import Recurrent
from quantfx.backends.weight_only.family import WeightOnly
from quantfx.passes.annotate.annotate import Annotate
from quantfx.passes.annotate.check_config import CheckConfig
from quantfx.passes.annotate.expand_attention import ExpandAttention
from quantfx.passes.annotate.propagate import Propagate
from quantfx.passes.annotate.share import Share
from quantfx.passes.capture.inline_no_grad import InlineNoGrad
from quantfx.passes.capture.remove_dead_code import RemoveDeadCode
from quantfx.passes.capture.remove_dropout import RemoveDropout
from quantfx.passes.config.recipe import Recipe
from quantfx.passes.convert.fold_weights import FoldWeights
from quantfx.passes.convert.insert_qdq import InsertQDQ
from quantfx.passes.convert.pack_halves import PackHalves
from quantfx.passes.convert.repair.by_all_data import by_all_data
from quantfx.passes.convert.repair.correct_bias import CorrectBias
from quantfx.passes.convert.repair.round_weights import RoundWeights
from quantfx.passes.convert.share_tied_tables import ShareTiedTables
from quantfx.passes.convert.tidy import Tidy
from quantfx.passes.fold.compute_in_float32 import ComputeInFloat32
from quantfx.passes.fold.fold_batch_norm import FoldBatchNorm
from quantfx.passes.fold.fold_constants import FoldConstants
from quantfx.passes.fold.fold_scales import FoldScales
from quantfx.passes.fold.store_in_half import StoreInHalf
from quantfx.passes.lower.hoist_quantize import HoistQuantize
from quantfx.passes.lower.include_zero import IncludeZero
from quantfx.passes.lower.lower import Lower
from quantfx.passes.lower.merge_equal import MergeEqual
from quantfx.passes.lower.restore_layouts import RestoreLayouts
from quantfx.passes.lower.size_free_views import SizeFreeViews
from quantfx.passes.lower.slice_splits import SliceSplits
from quantfx.passes.observe.insert_observers import InsertObservers
from quantfx.passes.observe.observe_channels import ObserveChannels
from quantfx.passes.observe.smooth_activations import SmoothActivations
from quantfx.passes.pipeline.kernel_family import KernelFamily
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.quant.nibbles import HIGH, LOW
from quantfx.passes.quant.scale_floor import SCALE_FLOOR, TORCHAO_FLOOR
from quantfx.passes.quant.spec import LEAST_GROUP, CastSpec, Concrete, ObserverName, QuantSpec
from quantfx.passes.train.adopt_fake_quantize import AdoptFakeQuantize
from quantfx.passes.train.fold_qat_conv_bn import FoldQatConvBn
from quantfx.passes.train.fuse_qat_conv_bn import FuseQatConvBn
from quantfx.passes.train.lift_dropout import LiftDropout
from quantfx.passes.train.place_dropout import PlaceDropout
from quantfx.passes.train.settle_modes import SettleModes
from quantfx.patterns.errors import QuantfxError, unknown_name
from quantfx.patterns.loader import load
from quantfx.patterns.pattern_set import PatternSet

Kernels = Literal["auto", "direct", "onednn"]

PREPARE = Pipeline(
    (
        CheckConfig(),  # first: it identifies operators by the names that the user sees
        LiftDropout(),  # training only: before the templates, as inference has no dropouts
        RemoveDeadCode(),  # before the templates: they require single users, and dead users count
        AdoptFakeQuantize(scales=False),  # before fold-batch-norm, for models of torch.ao
        ComputeInFloat32(),  # before the templates, and before passes that fold weights in float32
        FoldConstants(),  # before fold-batch-norm and the templates, which take stored weights
        FoldBatchNorm(),  # before annotate-conv: a batch norm hides the activation behind it
        FoldScales(),  # after fold-constants, which stores these
        Annotate("conv-bn"),  # training only: before annotate-conv, which takes no batch norms
        FuseQatConvBn(),  # after annotate-conv-bn, whose matches it rewrites
        Annotate("conv"),  # before other templates: a residual add belongs to the convolution
        Annotate("linear"),
        Annotate("rnn"),
        Annotate("embedding"),
        Annotate("attention"),
        ExpandAttention(),  # after annotate-attention, whose matches become two products each
        Annotate("matmul"),
        Annotate("mul"),
        Annotate("max-pool"),  # only notes candidates: propagate settles them
        Propagate(),  # after every annotate pass: it asks which values quantized patterns yield
        Share(),  # after propagate: it needs every site
        InsertObservers(),
        PlaceDropout(),  # after insert-observers, so that training rounds what inference rounds
    ),
    name="prepare",
)

# Least samples of calibration data for repairs by default. Eight would gain as well; 32 spare users
# who quantize on a single example the time.
REPAIRED_FROM = 32

CONVERT = Pipeline(
    (
        RoundWeights(from_samples=REPAIRED_FROM),
        CorrectBias(from_samples=REPAIRED_FROM),  # after other passes that change weights
        InsertQDQ(),
        ShareTiedTables(),  # before fold-weights, which then finds one quantize for both
        FoldWeights(),
        PackHalves(),  # after fold-weights, which makes the weights that it packs
        Tidy(),  # after fold-weights, which leaves the float originals unused
        StoreInHalf(),  # last: applies to what is left in float
    ),
    name="convert",
)

# Runs on a trained module before CONVERT, which then gets the same form as from calibration.
FINISH_TRAINING = Pipeline(
    (
        SettleModes(),  # first: later passes recognize operators in evaluation mode
        InlineNoGrad(),
        RemoveDropout(),
        FoldQatConvBn(),
        FoldBatchNorm(),  # batch norms of float layers; those of quantized layers are folded by now
    ),
    name="finish-training",
)

LOWER = Pipeline(
    (
        Tidy(dynamic=True),  # before lower: a dequantize with two readers belongs to no match
        HoistQuantize(),  # before lower: a quantize belongs to the kernel it stands behind
        IncludeZero(),  # Inductor's code for a dynamic range does not include zero
        SliceSplits(),  # before form-regions: a region's nodes are one tensor each
        SizeFreeViews(),  # before form-regions: a region computes no sizes
        RestoreLayouts(),  # before lower: here, nodes have their captured layouts
        FormRegions(),  # before lower, which takes the remaining sites
        Lower(),
        MergeEqual(),  # last: tidy and lower write some nodes twice
    ),
    name="lower",
)

# quantfx's kernels come before torch's kernel for int8 weights, which AOTInductor's libraries use.
ONEDNN = (OneDNN(), WeightOnly(), Int8Pack(), Int8Layout(), Lookup(), Recurrent())
# Environment variable that sets the meaning of ``kernels="auto"``.
CHOICE = "QUANTFX_KERNELS"
# Kernel families by the value of ``kernels``, in order.
FAMILIES: dict[str, tuple[KernelFamily, ...]] = {
    "auto": (Direct(), *ONEDNN),
    "direct": (Direct(required=True), WeightOnly(), Lookup(), Recurrent()),
    "onednn": ONEDNN,
}


def pattern_set(*, plans: bool = False) -> PatternSet:
    """Return the templates of x86: those of X86InductorQuantizer and further ones.

    Args:
        plans: Include templates that only prepared plans compute.
    """
    static = load("extended") | load("pt2e").without("conv1d_relu")  # extended's conv1d covers it
    patterns = static | load("linear_modes") | load("recurrent") | load("embeddings")
    return patterns.without("matmul") | load("plans") if plans else patterns  # with its own matmul


def x86(
    target: Target | None = None,
    *,
    patterns: PatternSet | None = None,
    reduce_range: bool = False,
    observer: ObserverName = "mse",
    weight_observer: ObserverName = "weight_mse",
    smooth: float | None = None,
    repair: bool | None = None,
    kernels: Kernels = "auto",
) -> Backend:
    """Return the x86 backend.

    It uses u8 per-tensor affine activations and s8 per-channel symmetric weights. Static by
    default; linears may also be dynamic, or have only weights of fp16, int8 or int4: see
    ``Backend.with_config``.

    Args:
        target: If its 16-bit sums saturate, weights get pair-bounded scales; None is
            machine-independent, with the full range.
        patterns: Another pattern set with the same spec names, e.g. ``load("pt2e")``.
        reduce_range: Activations in [0, 127]: another way to keep sums from saturating, at the
            price of one bit.
        observer: Observer of activations.
        weight_observer: Observer of weights. ``observer="histogram"`` with ``"min_max"`` here does
            what X86InductorQuantizer does, with its floor of 2^-12 under all scales; the defaults
            gave 2 to 4 dB more on EfficientNet-Lite0 (see README).
        smooth: Share of the unevenness of activation channels that moves into the weights of static
            linears, 0 to 1 (see ``SmoothActivations``); 0.7 gave 5 dB more on MiniLM. None moves
            nothing.
        repair: Round the weights of each layer together and correct its bias (see ``RoundWeights``
            and ``CorrectBias``). None repairs by 32 samples of calibration data; it repairs nothing
            if there are fewer, or if data is not kept, as in training and ``torch.compile``. True
            requires data, at least 8 samples, and repairs by all of it. False never repairs.
        kernels: ``direct`` for prepared plans of oneDNN primitives, which need the extra of that
            name and a C++ compiler; ``onednn`` for torch's own operators; ``auto`` for plans if
            available, and operators for sites that no plan takes. The environment variable
            ``QUANTFX_KERNELS``, if set, decides what ``auto`` means. Linears with only the weight
            quantized use quantfx's own kernels with each of them.

    Raises:
        QuantfxError: ``kernels`` is none of these, or is ``direct``, which is not available here.
    """
    saturates = target is not None and target.saturates
    bounded = saturates and not reduce_range
    specs = _specs(observer, weight_observer, reduce_range=reduce_range, bounded=bounded)
    families = _families(kernels)
    patterns = patterns or pattern_set(plans=_has_plans(families))
    recipe = Recipe.of("x86", patterns, specs)
    return Backend(
        "x86",
        recipe,
        prepare_pipeline=_prepare(smooth),
        convert_pipeline=_convert(smooth, repair=repair),
        lower_pipeline=LOWER,
        kernels=families,
        target=target,
        policy=range_policy(target, reduce_range=reduce_range, saturates=saturates),
        qat=Qat(load("qat"), FINISH_TRAINING),
    )


def _prepare(smooth: float | None) -> Pipeline:
    if smooth is None:
        return PREPARE
    return PREPARE.before("insert-observers", ObserveChannels())  # after share: by group


def _convert(smooth: float | None, *, repair: bool | None) -> Pipeline:
    convert = CONVERT
    if repair:
        convert = by_all_data(convert)
    elif repair is not None:
        convert = convert.without(RoundWeights.name, CorrectBias.name)
    if smooth is not None:
        # Before repairs: it changes weights.
        convert = Pipeline((SmoothActivations(smooth),), convert.name) + convert
    return convert


def _specs(
    observer: ObserverName, weight_observer: ObserverName, *, reduce_range: bool, bounded: bool
) -> tuple[tuple[str, Concrete], ...]:
    """Return the specs by the names that templates use.

    Args:
        observer: Observer of activations.
        weight_observer: Observer of weights.
        reduce_range: Whether activations have 7 bits.
        bounded: Whether weights get pair-bounded scales.
    """
    torchao = observer == "histogram" and weight_observer == "min_max"
    eps = TORCHAO_FLOOR if torchao else SCALE_FLOOR
    activation = QuantSpec(torch.uint8, 0, 127 if reduce_range else 255, observer=observer, eps=eps)
    weight = replace(_weight(weight_observer), eps=eps)
    conv_weight = replace(weight, pair_bound="blocks" if bounded else "none")
    rows = replace(_weight(weight_observer), may_group=True)
    # No sum of two products with bytes up to 255 leaves 16 bits then.
    right = replace(activation, quant_min=64, quant_max=191) if bounded else activation
    return (
        ("act", activation),
        ("right_act", right),
        ("dynamic_act", replace(activation, dynamic=True)),
        ("conv_weight", conv_weight),
        ("conv_transpose_weight", replace(conv_weight, axis=1)),
        ("linear_weight", replace(weight, pair_bound="adjacent" if bounded else "none")),
        ("fp16_weight", CastSpec(torch.float16)),
        # Its sums are float, so none saturates, and a group of a row may have its own scale.
        ("weight_only", rows),
        ("weight_only_4bit", _weight_4bit(weight_observer)),
        # Clipping errors add up over the steps.
        ("recurrent_weight", replace(_weight("min_max"), quant_min=-127)),
        ("embedding_weight", rows),
        ("embedding_weight_4bit", replace(rows, quant_min=LOW, quant_max=HIGH)),
    )


def _families(kernels: str) -> tuple[KernelFamily, ...]:
    if kernels == "auto":
        kernels = os.environ.get(CHOICE, kernels)
    if kernels not in FAMILIES:
        raise unknown_name(QuantfxError, "kernels", kernels, FAMILIES)
    if kernels == "direct" and (reason := missing()):
        raise QuantfxError(
            f"kernels='direct' cannot run here: {reason}",
            rule="no-direct-runtime",
            fix="kernels='auto' takes what is there",
        )
    return FAMILIES[kernels]


def _has_plans(families: tuple[KernelFamily, ...]) -> bool:
    return Direct.name in {each.name for each in families} and not missing()


def _weight_4bit(observer: ObserverName) -> QuantSpec:
    return replace(_weight(observer), quant_min=LOW, quant_max=HIGH, group=LEAST_GROUP)


def _weight(observer: ObserverName) -> QuantSpec:
    return QuantSpec(torch.int8, -128, 127, symmetric=True, axis=0, observer=observer)
