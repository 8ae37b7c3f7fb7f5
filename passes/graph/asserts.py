"""The operator by which torch.export asserts what a tensor is."""

from __future__ import annotations

from quantfx.patterns.schema import resolve_op

ASSERT = resolve_op("aten._assert_tensor_metadata.default")
