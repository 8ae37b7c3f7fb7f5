"""How each tensor of a decoder's cache is kept in int8: what grows, and the scales."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from quantfx.decoding.cache_operators import LARGEST
from quantfx.decoding.growth import Growth
from quantfx.decoding.quantize_cache import CacheLeaf, QuantizeCache
from quantfx.passes.errors import CalibrationError, CaptureError
from quantfx.passes.inputs.leaves import leaves_in, map_leaves
from quantfx.passes.quant.qparams import qparams_from_range
from quantfx.passes.quant.spec import QuantSpec
from quantfx.patterns.errors import warn

_SPEC = QuantSpec(torch.int8, -LARGEST, LARGEST, symmetric=True, axis=0, observer="min_max")
# Of few values, the largest is much smaller than values still to come. What is this many standard
# deviations from the mean is in the range as well.
_DEVIATIONS = 4.0


def int8_cache(
    step: nn.Module,
    tokens: Tensor,
    cache: Any,
    growing: list[Growth],
    prompts: Iterable[Tensor] | None,
) -> QuantizeCache:
    """Return the pass that makes the cache of both graphs int8.

    Args:
        step: The float decoder.
        tokens: The example prompt.
        cache: The cache of all tokens but the last.
        growing: How a token changes each of its leaves.
        prompts: What the scales are found from; ``tokens`` if None.

    Raises:
        CaptureError: a tensor of the cache grows otherwise than by a token behind the others.
        CalibrationError: there is no prompt, one is none, or makes the cache NaN or infinite.
    """
    axes = _axes(step, tokens, cache, growing)
    ranges = [
        None if axis is None else _Range(leaf, axis, len(tokens))
        for leaf, axis in zip(leaves_in(cache), axes, strict=True)
    ]
    given = _example(tokens) if prompts is None else _checked(prompts)
    with torch.no_grad():
        for prompt in given:
            leaves = leaves_in(step(prompt)[1])
            for leaf, found in zip(leaves, ranges, strict=True):
                if found is not None:
                    found.see(leaf)
    made = tuple(None if each is None else each.leaf() for each in ranges)
    seen = min(each.seen for each in ranges if each is not None)
    return QuantizeCache(made, seen, max(prompt.shape[1] for prompt in given))


def _example(tokens: Tensor) -> list[Tensor]:
    """Return the example as the only prompt, and warn of it."""
    warn(
        f"the scales of the int8 cache are from {tokens.numel()} tokens of the example alone: "
        "later keys and values may saturate, above all where keys turn with their position",
        rule="example-only",
        site="prompts",
        fix="give prompts as long as the contexts to come: prompts=[tokens, ...]",
        stacklevel=4,
    )
    return [tokens]


def _checked(prompts: Iterable[Tensor]) -> list[Tensor]:
    fix = "give a list of integer tensors of shape (rows, tokens), as prompts=[prompt]"
    if isinstance(prompts, Tensor):
        raise CalibrationError(
            "prompts is one tensor", rule="calibration-form", site="prompts", fix=fix
        )
    found = list(prompts)
    if not found:
        message = "there are no prompts to find the scales of the cache from"
        raise CalibrationError(message, rule="no-batches", site="prompts", fix=fix)
    for number, each in enumerate(found):
        if not isinstance(each, Tensor) or each.dim() != 2 or each.numel() == 0:
            shape = f"of shape {tuple(each.shape)}" if isinstance(each, Tensor) else type(each)
            message = f"prompt {number} is no prompt but {shape}"
            raise CalibrationError(message, rule="calibration-form", site="prompts", fix=fix)
    return found


def _axes(step: nn.Module, tokens: Tensor, cache: Any, growing: list[Growth]) -> list[int | None]:
    """Return the dimension in which each leaf grows; None for what is not kept in int8.

    The float model decodes a token, which has to come behind an unchanged past.
    """
    before = leaves_in(cache)
    with torch.no_grad():
        given = map_leaves(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, cache)
        after = leaves_in(step(tokens[:, -1:].contiguous(), given)[1])
    axes: list[int | None] = []
    for number, (old, new, growth) in enumerate(zip(before, after, growing, strict=True)):
        if not growth.axes or not old.is_floating_point():
            axes.append(None)
            continue
        [axis, *others] = growth.axes
        if others or new.shape[axis] != old.shape[axis] + 1:
            raise _refused(number, f"goes from {_text(old)} to {_text(new)} with one token")
        if not torch.equal(new.narrow(axis, 0, old.shape[axis]), old):
            raise _refused(number, "has other values for old tokens after a new one")
        axes.append(axis)
    if not any(axis is not None for axis in axes):
        raise _refused(0, "holds no floats, as all that grow")
    return axes


def _text(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _refused(number: int, why: str) -> CaptureError:
    return CaptureError(
        f"tensor {number} of the cache {why}: int8 is for a past that stays, and one token behind",
        rule="cache-form",
        site="cache",
        fix="leave out cache='int8'",
    )


class _Range:
    """The range of each channel of a leaf.

    Args:
        example: The leaf of the example.
        axis: The dimension that grows.
        rows: How many rows the example has.
    """

    def __init__(self, example: Tensor, axis: int, rows: int) -> None:
        self._example = example
        self._axis = axis
        sizes = enumerate(example.shape)
        batch = [at for at, size in sizes if size == rows and at != axis][:1]
        self._rows = rows if batch else 1
        self._over = (*batch, axis)
        shape = [1 if at in self._over else size for at, size in enumerate(example.shape)]
        self._largest = torch.zeros(shape)
        self._sum, self._squares = torch.zeros(2, *shape, dtype=torch.float64)
        self.seen = 0

    def see(self, leaf: Tensor) -> None:
        """Add the values of a leaf."""
        self._largest = self._largest.maximum(leaf.float().abs().amax(self._over, keepdim=True))
        if not bool(torch.isfinite(self._largest).all()):
            message = "a prompt makes the cache NaN or infinite"
            raise CalibrationError(message, rule="not-finite", site="prompts", fix="leave it out")
        exact = leaf.double()
        self._sum = self._sum + exact.sum(self._over, keepdim=True)
        self._squares = self._squares + exact.square().sum(self._over, keepdim=True)
        self.seen += leaf.numel() // self._largest.numel()

    def leaf(self) -> CacheLeaf:
        """Return how the leaf is quantized."""
        mean = self._sum / self.seen
        deviation = (self._squares / self.seen - mean.square()).clamp(min=0).sqrt()
        likely = (mean.abs() + _DEVIATIONS * deviation).float()
        reach = self._largest.maximum(likely).flatten()
        scale = qparams_from_range(-reach, reach, _SPEC).scale.reshape(self._largest.shape)
        example = self._example
        return CacheLeaf(self._axis, self._rows, tuple(example.shape), example.dtype, scale)
