"""For tests of users: is the model quantized as expected, and is the graph the same as before?

The fixture ``graph_snapshot`` comes from the plugin of pytest, ``pytest_quantfx.py``.
"""

from __future__ import annotations

from quantfx.testing.assert_quantized import assert_quantized
from quantfx.testing.graph_snapshot import GraphSnapshot

__all__ = ["GraphSnapshot", "assert_quantized"]
