"""Convert a calibrated model to quantize and dequantize operators."""

from __future__ import annotations

from torch.fx import GraphModule

from quantfx.compat.convert.adopt_observers import AdoptObservers
from quantfx.compat.convert.fold_constant_chains import FoldConstantChains
from quantfx.compat.convert.merge_float_readers import MergeFloatReaders
from quantfx.compat.convert.name_frozen_params import NameFrozenParams
from quantfx.compat.convert.port_metadata import PortMetadata
from quantfx.compat.exported.export_utils import forbid_train_eval
from quantfx.compat.exported.rebind import rebind_annotations
from quantfx.compat.exported.take_over import take_over
from quantfx.compat.terms.errors import as_raised
from quantfx.passes.capture.remove_dead_code import RemoveDeadCode
from quantfx.passes.convert.fold_weights import FoldWeights
from quantfx.passes.convert.insert_qdq import InsertQDQ
from quantfx.passes.convert.scale_remarks import warn_of_scales
from quantfx.passes.errors import ArgumentError
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.train.fold_qat_conv_bn import FoldQatConvBn

CONVERT = Pipeline(
    (
        FoldQatConvBn(by_rsqrt=True),  # first: fake-quantizes are asked about folded weights
        AdoptObservers(),  # before insert-qdq, which knows quantfx's observers only
        InsertQDQ(),
        RemoveDeadCode(),  # a result that nothing reads may have been observed
        MergeFloatReaders(),
        PortMetadata(),  # before folding: a constant gets the tag of what it replaces
        FoldConstantChains(),
        FoldWeights(casts=False),  # a cast weight stays float: users count both halves
        NameFrozenParams(),
        RemoveDeadCode(),  # the float originals
    ),
    name="convert",
)
KEEP_FLOAT_WEIGHTS = CONVERT.without("fold-constant-chains", "fold-weights", "name-frozen-params")


def convert_pt2e(
    model: GraphModule,
    use_reference_representation: bool = False,
    fold_quantize: bool = True,
    *,
    inplace: bool = True,
) -> GraphModule:
    """Return the quantized model.

    Args:
        model: From ``prepare_pt2e``, after calibration.
        use_reference_representation: Must be False; integer reference arithmetic is not offered.
        fold_quantize: Store weights as integers; False leaves them float, with a quantize each.
        inplace: Also turn ``model`` itself into the quantized model, as users of PT2E expect.

    Raises:
        ArgumentError: an argument asks for what does not exist.
    """
    if not isinstance(use_reference_representation, bool):
        raise ArgumentError(
            f"use_reference_representation is {use_reference_representation!r}",
            rule="wrong-type",
            site="use_reference_representation",
            fix="pass a bool",
        )
    if use_reference_representation:
        raise ArgumentError(
            "use_reference_representation=True is not offered, as backends read the q/dq graph",
            rule="not-offered",
            site="use_reference_representation",
            fix="leave it out",
        )
    pipeline = CONVERT if fold_quantize else KEEP_FLOAT_WEIGHTS
    with as_raised():
        converted = pipeline.run(model)
    warn_of_scales(converted)
    rebind_annotations(converted)
    forbid_train_eval(converted)
    if inplace:
        take_over(model, converted)
        converted.graph.owning_module = converted
    return converted
