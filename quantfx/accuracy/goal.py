"""The goal of a search: a metric, a cost, a size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from quantfx.accuracy.cost import Price
from quantfx.passes.errors import ArgumentError

_ROUNDING = 1e-9  # for sums of costs in another order


@dataclass(frozen=True)
class Goal:
    """Bounds on metric, cost and size; None where there is no bound.

    Attributes:
        at_least: Lower bound of the metric.
        at_most_slower: Extra cost compared with every site int8: 0.1 allows 10 % more.
        size: Upper bound of the bytes of all weights.
    """

    at_least: float | None = None
    at_most_slower: float | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        bounds = {
            "at_least": self.at_least,
            "at_most_slower": self.at_most_slower,
            "size": self.size,
        }
        given = {name: value for name, value in bounds.items() if value is not None}
        if not given:
            message = "quantize_to was given no goal"
            fix = "give at_least=, at_most_slower= or size="
            raise ArgumentError(message, rule="no-goal", site="at_least", fix=fix)
        for name, value in given.items():
            if not isinstance(value, Real):
                message = f"{name} is a {type(value).__name__}, not a number"
                raise ArgumentError(message, rule="wrong-type", site=name, fix="give a number")
            if math.isnan(value) or (name != "at_least" and value < 0):
                message = f"{name}={value} is not a bound"
                fix = "give a number" if name == "at_least" else "give a number from 0"
                raise ArgumentError(message, rule="number-range", site=name, fix=fix)

    def affords(self, price: Price, least: Price) -> bool:
        """Whether a recipe is cheap and small enough.

        Args:
            price: Price of the recipe.
            least: Price with every site int8.
        """
        if self.at_most_slower is not None:
            most = least.cost * (1 + self.at_most_slower)
            if price.cost > most * (1 + _ROUNDING):
                return False
        return self.size is None or price.size <= self.size

    def __str__(self) -> str:
        words = [
            f">= {self.at_least:g}" if self.at_least is not None else "the best",
            f"at most {self.at_most_slower:.0%} slower" if self.at_most_slower is not None else "",
            f"at most {self.size:,} bytes" if self.size is not None else "",
        ]
        return ", ".join(filter(None, words))
