"""Packed sequences: no graph holds one, since its sizes are sums of lengths, which are values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from traceback import walk_tb
from typing import Any

from torch import nn
from torch.nn.utils.rnn import PackedSequence

from quantfx.passes.errors import CaptureError

_FIX = (
    "leave out pack_padded_sequence and give the layer the padded sequence, with a free number of "
    "steps: dynamic_shapes={...: {0: Dim.AUTO, 1: Dim.AUTO}}. Padding comes last, so that it "
    "changes no result before it; each row's last one is states[torch.arange(states.shape[0]), "
    "lengths - 1]. A layer in both directions would read the padding first: give it sequences of "
    "one length in a call"
)


def require_no_packed(given: object, named: object) -> None:
    """Refuse example inputs that hold a packed sequence.

    Raises:
        CaptureError: they do; names the input.
    """
    for place in (*_places("example_inputs", given), *_places("example_kwargs", named)):
        raise _refusal(f"{place} is a packed sequence, which no graph takes", place)


def _places(place: str, value: Any) -> Iterator[str]:
    """Yield where ``value`` holds packed sequences."""
    if _is_packed(value):
        yield place
    elif isinstance(value, (Mapping, list, tuple)):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, each in pairs:
            yield from _places(f"{place}[{key!r}]", each)


def packed_refusal(model: nn.Module, error: Exception) -> CaptureError | None:
    """Return our error for one that a recurrent layer of ``model`` raised for a packed sequence."""
    for frame, _ in walk_tb(error.__traceback__):
        known: dict[str, Any] = frame.f_locals
        layer = known.get("self")
        if isinstance(layer, nn.RNNBase) and any(map(_is_packed, known.values())):
            names = [name for name, each in model.named_modules() if each is layer]
            site = names[0] if names else ""
            told = f"'{site}' ({type(layer).__name__})" if site else type(layer).__name__
            message = f"torch.export takes no packed sequence, and {told} is given one"
            return _refusal(message, site or type(layer).__name__)
    return None


def _is_packed(value: object) -> bool:
    return isinstance(value, PackedSequence)


def _refusal(message: str, site: str) -> CaptureError:
    return CaptureError(message, rule="packed-sequence", site=site, fix=_FIX)
