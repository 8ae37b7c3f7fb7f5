"""Checks for ``quantfx.bisect`` and ``quantfx.reduce``: what must hold of a result.

A check of your own is a function of a `Result`, or a `Check`, which also gets the float graph and
the inputs, and so can be asked about a smaller graph as well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantfx.passes.inputs.leaves import leaves_in
from quantfx.passes.model.input_copies import copy_inputs
from quantfx.result import Result

__all__ = ["Check", "CloseToFloat", "Runs", "close_to_float", "runs"]


@dataclass(frozen=True)
class Check(ABC):
    """What must hold of a result; its ``repr`` makes it again, where fields are plain values.

    Attributes:
        compiled: Whether what ``Result.compile`` returns is run, instead of ``Result.module``.
    """

    compiled: bool = False

    @abstractmethod
    def holds(
        self, result: Result, reference: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> bool:
        """Return whether ``result`` is as it should be.

        Args:
            result: Of quantizing.
            reference: The float graph that was quantized.
            args: Positional inputs.
            kwargs: Keyword inputs.
        """

    def outputs(self, result: Result, *args: Any, **kwargs: Any) -> list[Any]:
        """Return what the result computes, as a flat list."""
        module = result.compile() if self.compiled else result.module
        return _outputs(module, args, kwargs)


@dataclass(frozen=True)
class Runs(Check):
    """Nothing raises: neither a pass, nor the contract, nor a call."""

    def holds(
        self, result: Result, reference: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> bool:
        """Run it once."""
        self.outputs(result, *args, **kwargs)
        return True


@dataclass(frozen=True)
class CloseToFloat(Check):
    """Every float output is as close to the float graph's as ``sqnr_db`` says.

    Attributes:
        sqnr_db: Smallest ratio of signal to quantization noise, in dB.
    """

    sqnr_db: float = 20.0

    def holds(
        self, result: Result, reference: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> bool:
        """Compare leaf by leaf; another number of leaves or another shape does not hold."""
        from quantfx.tools.measure.metrics import sqnr_db  # the facade reaches tools lazily

        expected = _outputs(reference, args, kwargs)
        actual = self.outputs(result, *args, **kwargs)
        if len(expected) != len(actual):
            return False
        for a, b in zip(expected, actual, strict=True):
            if not isinstance(a, Tensor) or not a.is_floating_point() or not a.numel():
                continue
            if a.shape != b.shape or not sqnr_db(a, b) >= self.sqnr_db:
                return False
        return True


def _outputs(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Any]:
    """Return what a call gives, as a flat list; what it writes to are copies of the inputs."""
    args, kwargs = copy_inputs(args, kwargs)
    with torch.no_grad():
        return leaves_in(function(*args, **kwargs))


def close_to_float(sqnr_db: float = 20.0, *, compiled: bool = False) -> CloseToFloat:
    """Return the check that outputs are within ``sqnr_db`` dB of the float graph's."""
    return CloseToFloat(compiled, sqnr_db)


def runs(*, compiled: bool = False) -> Runs:
    """Return the check that nothing raises."""
    return Runs(compiled)
