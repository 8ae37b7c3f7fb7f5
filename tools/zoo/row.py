"""The measurements of one network, as plain data."""

from __future__ import annotations

import json
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any, Literal

StageName = Literal["build", "quantize", "module", "compile", "file", "auto"]
Outcome = Literal["done", "refused", "foreign error", "ended"]


@dataclass(frozen=True)
class Stage:
    """One stage of a measurement.

    Attributes:
        outcome: ``refused`` by a quantfx error, ``foreign error``, or the process ``ended``.
        seconds: Duration.
        message: Message of the error.
    """

    outcome: Outcome
    seconds: float
    message: str = ""


@dataclass(frozen=True)
class FloatOperator:
    """Operators with multiply-accumulates or weights that stay float for one reason.

    Attributes:
        op: Name, with its namespace.
        count: Number of operators.
        reason: Why they stay float; empty if no template mentions the operator.
        reads_weights: Whether they read a stored tensor.
        known: Whether shapes determine their multiply-accumulates.
    """

    op: str
    _: KW_ONLY
    count: int
    reason: str
    reads_weights: bool
    known: bool = True


@dataclass
class Row:
    """The measurements of one network.

    Attributes:
        network: Its name.
        library: The library that makes it.
        commit: Commit of quantfx.
        parameters: Number of elements of all parameters.
        stages: Stages in the order they ran; the last may have ended the process.
        planned: Number of planned sites.
        lowered: Number of planned sites that reached what their template promises.
        compiled: Likewise for the compiled module.
        int8_macs: Share of the known multiply-accumulates.
        floats: Operators that stay float.
        decibels: ``module``, ``compiled``, ``loaded`` and ``auto`` against the float network, and
            ``q/dq, module`` and ``q/dq, compiled``, kernels against the q/dq graph.
        steps: Largest difference of a kernel call from its reference on equal inputs, in steps.
        error: Likewise for float results, relative to the largest magnitude.
        auto_state: The value of ``AutoQuantized.state``.
        warnings: Warnings of quantfx.
    """

    network: str
    library: str
    commit: str = ""
    parameters: int = 0
    stages: dict[str, Stage] = field(default_factory=dict[str, Stage])
    planned: int = 0
    lowered: int = 0
    compiled: int = 0
    int8_macs: float | None = None
    floats: list[FloatOperator] = field(default_factory=list[FloatOperator])
    decibels: dict[str, float] = field(default_factory=dict[str, float])
    steps: int | None = None
    error: float | None = None
    auto_state: str = ""
    warnings: list[str] = field(default_factory=list[str])

    def seconds(self, stage: StageName) -> float | None:
        """Return the duration of a stage; None if it did not run."""
        done = self.stages.get(stage)
        return done.seconds if done and done.outcome == "done" else None

    def to_json(self) -> str:
        """Return the row as JSON text; infinity stands as Python writes it."""
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> Row:
        """Return the row that ``to_json`` wrote.

        Raises:
            ValueError: the text is not JSON.
            TypeError: a field is unknown.
            KeyError: a field is missing.
        """
        data: dict[str, Any] = json.loads(text)
        data["stages"] = {name: Stage(**stage) for name, stage in data["stages"].items()}
        data["floats"] = [FloatOperator(**each) for each in data["floats"]]
        return Row(**data)
