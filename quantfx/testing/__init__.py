"""Helpers for users' tests: is a model quantized as expected, and is its graph unchanged?

The fixture ``graph_snapshot`` comes from the pytest plugin, ``pytest_quantfx.py``.
"""

from quantfx.testing.assert_quantized import assert_quantized
from quantfx.testing.graph_snapshot import GraphSnapshot

__all__ = ["GraphSnapshot", "assert_quantized"]
