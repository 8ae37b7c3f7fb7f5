"""Graphs without the checks of their calls, which take two more exports: where those are no matter.

Tests of what users get call ``quantfx`` itself.
"""

from functools import partial

import quantfx

capture = partial(quantfx.capture, check_inputs=False, compare=False)
quantize = partial(quantfx.quantize, check_inputs=False, compare=False, progress=False)
prepare_qat = partial(quantfx.prepare_qat, check_inputs=False, progress=False)
