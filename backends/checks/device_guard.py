"""Refuse to run a graph of kernels that this machine lacks."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.fx import GraphModule

from quantfx.passes.inputs.leaves import input_leaves
from quantfx.patterns.errors import QuantfxError


def refuse_on_cpu(module: GraphModule, reason: str) -> None:
    """Make ``module`` raise a ``QuantfxError`` with ``reason`` when called with CPU tensors."""
    module.register_forward_pre_hook(partial(_require_elsewhere, reason), with_kwargs=True)


def _require_elsewhere(
    reason: str, module: GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    leaves = (leaf for _, leaf in input_leaves(module, args, kwargs))
    if any(isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu" for leaf in leaves):
        raise QuantfxError(reason, rule="not-here")
