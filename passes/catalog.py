"""Every pass of this folder by name; pipelines are parsed from text with this catalog."""

from __future__ import annotations

from quantfx.passes.annotate.adopt_outputs import AdoptOutputs
from quantfx.passes.annotate.annotate import Annotate
from quantfx.passes.annotate.check_config import CheckConfig
from quantfx.passes.annotate.expand_attention import ExpandAttention
from quantfx.passes.annotate.propagate import Propagate
from quantfx.passes.annotate.share import Share
from quantfx.passes.capture.functionalize import Functionalize
from quantfx.passes.capture.inline_no_grad import InlineNoGrad
from quantfx.passes.capture.name_contractions import NameContractions
from quantfx.passes.capture.name_products import NameProducts
from quantfx.passes.capture.normalize_ops import NormalizeOps
from quantfx.passes.capture.recompose import Recompose
from quantfx.passes.capture.remove_asserts import RemoveAsserts
from quantfx.passes.capture.remove_dead_code import RemoveDeadCode
from quantfx.passes.capture.remove_dropout import RemoveDropout
from quantfx.passes.capture.remove_self_copies import RemoveSelfCopies
from quantfx.passes.capture.sink_constants import SinkConstants
from quantfx.passes.capture.switch_modes import SwitchModes
from quantfx.passes.convert.fold_weights import FoldWeights
from quantfx.passes.convert.insert_qdq import InsertQDQ
from quantfx.passes.convert.pack_halves import PackHalves
from quantfx.passes.convert.repair.correct_bias import CorrectBias
from quantfx.passes.convert.repair.round_weights import RoundWeights
from quantfx.passes.convert.share_tied_tables import ShareTiedTables
from quantfx.passes.convert.tidy import Tidy
from quantfx.passes.fold.compute_in_float32 import ComputeInFloat32
from quantfx.passes.fold.fold_batch_norm import FoldBatchNorm
from quantfx.passes.fold.fold_constants import FoldConstants
from quantfx.passes.fold.fold_scales import FoldScales
from quantfx.passes.fold.store_in_half import StoreInHalf
from quantfx.passes.lower.expand_affine_weights import ExpandAffineWeights
from quantfx.passes.lower.hoist_quantize import HoistQuantize
from quantfx.passes.lower.include_zero import IncludeZero
from quantfx.passes.lower.keep_packed import KeepPacked
from quantfx.passes.lower.lower import Lower
from quantfx.passes.lower.merge_equal import MergeEqual
from quantfx.passes.lower.read_plan import ReadPlan
from quantfx.passes.lower.restore_layouts import RestoreLayouts
from quantfx.passes.lower.size_free_views import SizeFreeViews
from quantfx.passes.lower.slice_splits import SliceSplits
from quantfx.passes.observe.equalize.equalize_layers import EqualizeLayers
from quantfx.passes.observe.equalize.record_pairs import RecordPairs
from quantfx.passes.observe.insert_observers import InsertObservers
from quantfx.passes.observe.observe_channels import ObserveChannels
from quantfx.passes.observe.smooth_activations import SmoothActivations
from quantfx.passes.observe.statistics.record_tensors import RecordTensors
from quantfx.passes.pipeline.base import Pass
from quantfx.passes.train.adopt_fake_quantize import AdoptFakeQuantize
from quantfx.passes.train.fold_qat_conv_bn import FoldQatConvBn
from quantfx.passes.train.fuse_qat_conv_bn import FuseQatConvBn
from quantfx.passes.train.lift_dropout import LiftDropout
from quantfx.passes.train.place_dropout import PlaceDropout
from quantfx.passes.train.settle_modes import SettleModes

PASSES: tuple[type[Pass], ...] = (
    SwitchModes,
    InlineNoGrad,
    SinkConstants,
    RemoveAsserts,
    RemoveDropout,
    RemoveSelfCopies,
    Functionalize,
    Recompose,
    NormalizeOps,
    NameContractions,
    NameProducts,
    CheckConfig,
    RemoveDeadCode,
    LiftDropout,
    AdoptFakeQuantize,
    ComputeInFloat32,
    FoldConstants,
    FoldBatchNorm,
    FoldScales,
    RecordPairs,
    EqualizeLayers,
    Annotate,
    FuseQatConvBn,
    ExpandAttention,
    Propagate,
    AdoptOutputs,
    Share,
    ObserveChannels,
    InsertObservers,
    RecordTensors,
    PlaceDropout,
    SmoothActivations,
    RoundWeights,
    CorrectBias,
    SettleModes,
    FoldQatConvBn,
    InsertQDQ,
    ShareTiedTables,
    FoldWeights,
    PackHalves,
    StoreInHalf,
    Tidy,
    IncludeZero,
    HoistQuantize,
    SizeFreeViews,
    SliceSplits,
    RestoreLayouts,
    Lower,
    MergeEqual,
    ReadPlan,
    ExpandAffineWeights,
    KeepPacked,
)
