"""Find out whether a model reads the layout of tensors: strides, offsets or contiguity."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.overrides import TorchFunctionMode

from quantfx.passes.graph.graphs import all_graphs

LAYOUT_KEY = "quantfx_layout"

_READS: frozenset[Callable[..., Any]] = frozenset(
    (
        Tensor.stride,
        Tensor.storage_offset,
        Tensor.is_contiguous,
        Tensor.dim_order,
        Tensor.untyped_storage,
        Tensor.data_ptr,
    )
)


class LayoutReads(TorchFunctionMode):
    """Notes layout queries of the model's own code, but not of torch's functions.

    Attributes:
        seen: Whether there was a query.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run ``func``, and note it."""
        self.seen = self.seen or func in _READS
        return func(*args, **(kwargs or {}))


@contextmanager
def watched_layout(model: nn.Module) -> Generator[LayoutReads]:
    """Watch calls of ``model`` only: its callers, such as torch.export, ask for layouts as well."""
    reads = LayoutReads()
    own = vars(model).get("forward")
    original = model.forward

    @wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        with reads:
            return original(*args, **kwargs)

    vars(model)["forward"] = forward
    try:
        yield reads
    finally:
        del vars(model)["forward"]
        if own is not None:
            vars(model)["forward"] = own


def has_strides(graph: GraphModule) -> bool:
    """Whether a node of ``graph`` holds strides."""
    return any(
        node.target is torch.ops.aten.as_strided.default
        for _, each in all_graphs(graph)
        for node in each.graph.nodes
    )
