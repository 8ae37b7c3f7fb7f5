"""The pipeline that gives every captured graph a canonical form with one spelling per operator."""

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
from quantfx.passes.pipeline.pipeline import Pipeline

CANONICALIZE = Pipeline(
    (
        InlineNoGrad(),  # first: the inlined nodes are canonicalized with the rest
        SinkConstants(),  # weights of control-flow branches become constants of the branch
        RemoveAsserts(),  # they assert dtypes that may differ under autocast
        RemoveDropout(),  # before functionalize: dropout in eval returns its input, an alias
        Functionalize(),
        Recompose(),
        NormalizeOps(),  # after functionalize: the table needs the functional names only
        NameContractions(),
        NameProducts(),
        RemoveDeadCode(),  # last: the passes above leave unused constants behind
    ),
    name="canonicalize",
)

CANONICALIZE_TRAINING = Pipeline(
    (
        SwitchModes(),  # first: the others see which dropouts and batch norms have a mode
        SinkConstants(),
        RemoveAsserts(),
        RemoveSelfCopies(),  # before training: autograd treats them as changes
        RemoveDropout(),  # dropouts in eval mode while the model trains
        Functionalize(),
        NormalizeOps(),
        NameContractions(),
        NameProducts(),
        RemoveDeadCode(),
    ),  # regions without gradients stay regions until training is over
    name="canonicalize",
)
