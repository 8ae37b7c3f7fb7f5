"""When rounding begins and when ranges and batch norms stand still, in steps of training."""

from __future__ import annotations

from dataclasses import dataclass

from quantfx.passes.errors import PipelineError
from quantfx.passes.train.qat_module import QatModule


@dataclass(frozen=True)
class QatSchedule:
    """Switches a module by the number of the step; it can be resumed anywhere.

    Attributes:
        fake_quantize_from: First step that rounds; before it ranges are learned on float. Scales
            to learn start with the first step that rounds.
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
                raise PipelineError(f"{name}={value}: steps count from 0")

    def apply(self, module: QatModule, step: int) -> None:
        """Switch ``module`` as step number ``step``, from 0, wants it; call it before the step.

        Raises:
            PipelineError: ``module`` is none that was prepared for training.
        """
        if not isinstance(module, QatModule):
            raise PipelineError(
                f"a {type(module).__name__} has nothing to switch: give the module that was "
                "prepared, which a wrapper such as DistributedDataParallel holds as .module"
            )
        module.fake_quantize(step >= self.fake_quantize_from)
        module.freeze_batch_norm(_has_reached(step, self.freeze_batch_norm_from))
        module.freeze_observers(_has_reached(step, self.freeze_observers_from))


def _has_reached(step: int, first: int | None) -> bool:
    return first is not None and step >= first
