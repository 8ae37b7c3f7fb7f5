"""Checks for ``quantfx.bisect`` and ``quantfx.reduce``: what must hold of a result.

Your own check is a function of a `Result`, or a `Check`. A `Check` also gets the float graph and
the inputs, so it can judge smaller graphs too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantfx.passes.graph.immutable import Immutable
from quantfx.passes.inputs.leaves import leaves_in
from quantfx.passes.model.input_copies import copy_inputs
from quantfx.result import Result

__all__ = ["Check", "CloseToFloat", "Runs", "close_to_float", "runs"]


@dataclass(frozen=True)
class Check(Immutable, ABC):
    """What must hold of a result; if its fields are plain values, its ``repr`` makes it again.

    Attributes:
        compiled: Whether to run ``Result.compile()`` instead of ``Result.module``.
    """

    compiled: bool = False

    @abstractmethod
    def holds(
        self, result: Result, reference: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> bool:
        """Return whether ``result`` is good.

        Args:
            result: A result of ``quantize``.
            reference: The float graph that was quantized.
            args: Positional inputs.
            kwargs: Keyword inputs.
        """

    def outputs(self, result: Result, *args: Any, **kwargs: Any) -> list[Any]:
        """Return the outputs of the result as a flat list."""
        module = result.compile() if self.compiled else result.module
        return _outputs(module, args, kwargs)


class Runs(Check):
    """The check that neither a pass, nor the contract, nor a call raises."""

    def holds(
        self, result: Result, reference: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> bool:
        """Run it once."""
        self.outputs(result, *args, **kwargs)
        return True


@dataclass(frozen=True)
class CloseToFloat(Check):
    """The check that every float output is within ``sqnr_db`` of the float graph's.

    Attributes:
        sqnr_db: Smallest ratio of signal to quantization noise, in dB.
    """

    sqnr_db: float = 20.0

    def holds(
        self, result: Result, reference: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> bool:
        """Compare leaf by leaf; a different number of leaves or a different shape fails."""
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
    """Return the outputs of a call as a flat list; the call gets copies of the inputs."""
    args, kwargs = copy_inputs(args, kwargs)
    with torch.no_grad():
        return leaves_in(function(*args, **kwargs))


def close_to_float(sqnr_db: float = 20.0, *, compiled: bool = False) -> CloseToFloat:
    """Return the check that outputs are within ``sqnr_db`` dB of the float graph's."""
    return CloseToFloat(compiled, sqnr_db)


def runs(*, compiled: bool = False) -> Runs:
    """Return the check that nothing raises."""
    return Runs(compiled)
