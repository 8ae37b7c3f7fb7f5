"""Every pass of quantfx, by which pipelines are parsed from text."""

from __future__ import annotations

from quantfx.passes.adopt_fake_quantize import AdoptFakeQuantize
from quantfx.passes.adopt_outputs import AdoptOutputs
from quantfx.passes.annotate_batch_norm import AnnotateBatchNorm
from quantfx.passes.annotate_binary import AnnotateBinary
from quantfx.passes.annotate_cat import AnnotateCat
from quantfx.passes.annotate_conv import AnnotateConv
from quantfx.passes.annotate_conv_bn import AnnotateConvBn
from quantfx.passes.annotate_default import AnnotateDefault
from quantfx.passes.annotate_embedding import AnnotateEmbedding
from quantfx.passes.annotate_fixed_qparams import AnnotateFixedQparams
from quantfx.passes.annotate_layer_norm import AnnotateLayerNorm
from quantfx.passes.annotate_linear import AnnotateLinear
from quantfx.passes.annotate_matmul import AnnotateMatmul
from quantfx.passes.annotate_max_pool import AnnotateMaxPool
from quantfx.passes.annotate_mul import AnnotateMul
from quantfx.passes.annotate_rnn import AnnotateRnn
from quantfx.passes.annotate_share_qparams import AnnotateShareQparams
from quantfx.passes.base import Pass
from quantfx.passes.check_config import CheckConfig
from quantfx.passes.compute_in_float32 import ComputeInFloat32
from quantfx.passes.expand_affine_weights import ExpandAffineWeights
from quantfx.passes.fold_batch_norm import FoldBatchNorm
from quantfx.passes.fold_constants import FoldConstants
from quantfx.passes.fold_qat_conv_bn import FoldQatConvBn
from quantfx.passes.fold_scales import FoldScales
from quantfx.passes.fold_weights import FoldWeights
from quantfx.passes.functionalize import Functionalize
from quantfx.passes.fuse_qat_conv_bn import FuseQatConvBn
from quantfx.passes.hoist_quantize import HoistQuantize
from quantfx.passes.include_zero import IncludeZero
from quantfx.passes.inline_no_grad import InlineNoGrad
from quantfx.passes.insert_observers import InsertObservers
from quantfx.passes.insert_qdq import InsertQDQ
from quantfx.passes.keep_packed import KeepPacked
from quantfx.passes.lift_dropout import LiftDropout
from quantfx.passes.lower import Lower
from quantfx.passes.merge_equal import MergeEqual
from quantfx.passes.name_contractions import NameContractions
from quantfx.passes.name_products import NameProducts
from quantfx.passes.normalize_ops import NormalizeOps
from quantfx.passes.observe_channels import ObserveChannels
from quantfx.passes.place_dropout import PlaceDropout
from quantfx.passes.propagate import Propagate
from quantfx.passes.read_plan import ReadPlan
from quantfx.passes.recompose import Recompose
from quantfx.passes.remove_asserts import RemoveAsserts
from quantfx.passes.remove_dead_code import RemoveDeadCode
from quantfx.passes.remove_dropout import RemoveDropout
from quantfx.passes.remove_self_copies import RemoveSelfCopies
from quantfx.passes.restore_layouts import RestoreLayouts
from quantfx.passes.settle_modes import SettleModes
from quantfx.passes.share import Share
from quantfx.passes.share_tied_tables import ShareTiedTables
from quantfx.passes.shield_adds import ShieldAdds
from quantfx.passes.sink_constants import SinkConstants
from quantfx.passes.smooth_activations import SmoothActivations
from quantfx.passes.split_constants import SplitConstants
from quantfx.passes.store_in_half import StoreInHalf
from quantfx.passes.switch_modes import SwitchModes
from quantfx.passes.tidy import Tidy
from quantfx.passes.widen_casts import WidenCasts

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
    AnnotateConvBn,
    FuseQatConvBn,
    AnnotateConv,
    AnnotateLinear,
    AnnotateMul,
    AnnotateMatmul,
    AnnotateMaxPool,
    AnnotateRnn,
    AnnotateEmbedding,
    AnnotateBinary,
    AnnotateCat,
    AnnotateDefault,
    AnnotateBatchNorm,
    AnnotateLayerNorm,
    AnnotateFixedQparams,
    AnnotateShareQparams,
    Propagate,
    AdoptOutputs,
    Share,
    ObserveChannels,
    InsertObservers,
    PlaceDropout,
    SmoothActivations,
    SettleModes,
    FoldQatConvBn,
    InsertQDQ,
    ShareTiedTables,
    FoldWeights,
    StoreInHalf,
    Tidy,
    IncludeZero,
    ShieldAdds,
    WidenCasts,
    HoistQuantize,
    RestoreLayouts,
    Lower,
    MergeEqual,
    ReadPlan,
    ExpandAffineWeights,
    KeepPacked,
    SplitConstants,
)
