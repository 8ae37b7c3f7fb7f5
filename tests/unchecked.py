"""Graphs without the checks of their calls, which take two more exports: where those are no matter.

Tests of what users get call ``quantfx`` itself.
"""

from functools import partial
from typing import Any

from torch.fx import GraphModule

import quantfx
from quantfx.backends import Backend

capture = partial(quantfx.capture, check_inputs=False, compare=False)
prepare_qat = partial(quantfx.prepare_qat, check_inputs=False, progress=False)


def quantize(model: Any, inputs: Any = (), **options: Any) -> quantfx.Result:
    """Quantize ``model``, calibrated on ``inputs`` alone unless ``calibration`` is given."""
    chosen: dict[str, Any] = {"check_inputs": False, "compare": False}
    if "statistics" not in options:
        chosen["calibration"] = [inputs]
    return quantfx.quantize(model, inputs, **(chosen | options))


def convert(model: Any, inputs: tuple[Any, ...], backend: Backend) -> GraphModule:
    """Return the q/dq graph of ``model``, calibrated on ``inputs``."""
    prepared = backend.prepare(capture(model, inputs))
    quantfx.calibrate(prepared, [inputs])
    return backend.convert(prepared)
