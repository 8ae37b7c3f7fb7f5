"""What of a decoder's cache changes with each token: sizes of tensors, and whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.fx import GraphModule

from quantfx.passes.errors import CaptureError
from quantfx.passes.inputs.contract import contract_of
from quantfx.passes.inputs.leaves import leaves_in, leaves_with_paths, structure_text

_AS_TENSOR = "keep it as a tensor: an integer of no dimensions, such as torch.tensor(0)"


@dataclass(frozen=True)
class Growth:
    """How a leaf of a cache changes with a token.

    Attributes:
        axes: The dimensions of a tensor that grow.
        counts: Whether it is a whole number, such as of the tokens so far, which changes.
    """

    axes: tuple[int, ...] = ()
    counts: bool = False

    @property
    def shapes(self) -> Any:
        """What torch.export takes as the leaf's dynamic shapes."""
        return Dim.AUTO if self.counts else dict.fromkeys(self.axes, Dim.AUTO) or None


def grown(step: nn.Module, tokens: Tensor) -> tuple[Any, list[Growth]]:
    """Return the cache without the last token, and how a token changes each of its leaves.

    Raises:
        CaptureError: the cache does not grow, or otherwise than a graph can let it; names the leaf.
    """
    with torch.no_grad():
        _, whole = step(tokens)
        _, before = step(tokens[:, :-1])
    if structure_text(before) != structure_text(whole):
        raise CaptureError(
            f"a token turns the cache from {structure_text(before)} into {structure_text(whole)}, "
            "and a graph takes and returns the same containers in each call",
            rule="cache-form",
            site="cache",
            fix="let tensors grow, with torch.cat, and not lists or dicts",
        )
    growing = [
        _growth(f"cache{path}", old, new)
        for (path, old), new in zip(leaves_with_paths(before), leaves_in(whole), strict=True)
    ]
    if not any(each.axes for each in growing):
        message = f"the cache of {type(step).__name__} does not grow with the tokens"
        fix = (
            "give a prompt shorter than a sliding window; a cache of fixed size, in buffers, is "
            "one graph, and stays float: quantize the model itself"
        )
        raise CaptureError(message, rule="export-rejects", site="cache", fix=fix)
    return before, growing


def _growth(path: str, old: Any, new: Any) -> Growth:
    if isinstance(old, Tensor) and isinstance(new, Tensor) and old.dim() == new.dim():
        sizes = enumerate(zip(old.shape, new.shape, strict=True))
        return Growth(tuple(at for at, (size, later) in sizes if size != later))
    if type(old) is int and type(new) is int:
        return Growth(counts=old != new)
    if type(old) is type(new) and not isinstance(old, Tensor) and old == new:
        return Growth()
    raise CaptureError(
        f"a token turns {path} from {_text(old)} into {_text(new)}, and a graph always computes "
        "with the first",
        rule="cache-form",
        site=path,
        fix=_AS_TENSOR,
    )


def _text(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def require_free_counts(graph: GraphModule, cache: Any, growing: list[Growth]) -> None:
    """Refuse a graph that is for the example's count of tokens only; its last inputs are the cache.

    Raises:
        CaptureError: the model makes torch.export fix it; names the leaf.
    """
    contract = contract_of(graph)
    forms = () if contract is None else contract.forms[-len(growing) :]
    leaves = leaves_with_paths(cache)
    for form, growth, (path, value) in zip(forms, growing, leaves, strict=True):
        if growth.counts and not form.free:
            raise CaptureError(
                f"the model decides something by cache{path}, a whole number that each token "
                f"changes, so that its graph would always compute with {value}",
                rule="cache-form",
                site=f"cache{path}",
                fix=_AS_TENSOR,
            )
