"""When rounding starts and when ranges and batch norms freeze, in training steps."""

from __future__ import annotations

from dataclasses import dataclass

from quantfx.passes.errors import PipelineError
from quantfx.passes.train.qat_module import QatModule


@dataclass(frozen=True)
class QatSchedule:
    """Switches a module by step number; it can resume at any step.

    Attributes:
        fake_quantize_from: First step that rounds; before it, ranges are learned on float values.
            Learned scales start with the first step that rounds.
        freeze_batch_norm_from: First step with frozen batch norms; None for never.
        freeze_observers_from: First step with frozen ranges; None for never.
    """

    fake_quantize_from: int = 0
    freeze_batch_norm_from: int | None = None
    freeze_observers_from: int | None = None

    def __post_init__(self) -> None:
        for name in ("fake_quantize_from", "freeze_batch_norm_from", "freeze_observers_from"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise PipelineError(
                    f"{name}={value}: steps count from 0", rule="number-range", site=name
                )

    def apply(self, module: QatModule, step: int) -> None:
        """Switch ``module`` for step number ``step`` (from 0); call this before the step.

        Raises:
            PipelineError: ``module`` was not prepared for training.
        """
        if not isinstance(module, QatModule):
            message = f"a {type(module).__name__} has nothing to switch"
            fix = (
                "give the module that was prepared, which a wrapper such as "
                "DistributedDataParallel holds as .module"
            )
            raise PipelineError(message, rule="not-prepared", fix=fix)
        module.fake_quantize(step >= self.fake_quantize_from)
        module.freeze_batch_norm(_has_reached(step, self.freeze_batch_norm_from))
        module.freeze_observers(_has_reached(step, self.freeze_observers_from))


def _has_reached(step: int, first: int | None) -> bool:
    return first is not None and step >= first
