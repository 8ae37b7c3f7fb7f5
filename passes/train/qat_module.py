"""A graph with fake-quantize modules, which trains as any module does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from torch import nn

from quantfx.passes.errors import PipelineError
from quantfx.passes.graph.checked_module import CheckedModule
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.layers.batch_norm_scale import BatchNormScale
from quantfx.passes.layers.mode import Mode
from quantfx.passes.layers.mode_node import BATCH_NORM_MODE
from quantfx.passes.observers.cast_fake_quantize import CastFakeQuantize
from quantfx.passes.observers.dynamic_fake_quantize import DynamicFakeQuantize
from quantfx.passes.observers.fake_quantize import FakeQuantize
from quantfx.passes.observers.learned_fake_quantize import LearnedFakeQuantize

_ROUNDING = (FakeQuantize, DynamicFakeQuantize, CastFakeQuantize)


class QatModule(CheckedModule):
    """What ``prepare(..., qat=True)`` returns: float in, float out, rounded in between.

    ``train()`` and ``eval()`` switch batch norms, dropouts and the learning of ranges; rounding
    goes on in both. ``state_dict`` holds ranges and what is frozen or switched off.

    Under activation checkpointing freeze observers and batch norms: what is computed again would
    see ranges and statistics that have moved.
    """

    def fake_quantize(self, enabled: bool = True) -> None:
        """Round, or with False compute as the float model does."""
        for module in self.modules():
            if isinstance(module, (*_ROUNDING, BatchNormScale)):
                module.quantizing = enabled

    def freeze_observers(self, frozen: bool = True) -> None:
        """Keep the ranges of activations as they are; learned scales go on being trained."""
        for module in self.fake_quantizes():
            if isinstance(module, FakeQuantize):
                module.frozen = frozen

    def freeze_batch_norm(self, frozen: bool = True) -> None:
        """Let batch norms in training compute with their running statistics and keep those.

        Their parameters go on being trained. Weights are rounded as they will be folded with the
        running statistics, so the last part of a training is best spent on those.
        """
        for _, graph_module in all_graphs(self):
            for name, module in graph_module.named_children():
                if isinstance(module, Mode) and name.startswith(BATCH_NORM_MODE):
                    module.frozen = frozen

    def agree_within(self, group: Any) -> None:
        """Choose the processes that agree on the ranges they observe.

        All of them have to run the forward passes of the training. Calibrate in each, or before
        DistributedDataParallel hands the first one's buffers to all (its default).

        Args:
            group: A process group of torch.distributed; ``"world"``, the default, for all
                processes; None for each process by itself.
        """
        for module in self.fake_quantizes():
            if isinstance(module, FakeQuantize):
                module.group = group

    def scale_parameters(self) -> Iterator[nn.Parameter]:
        """Yield what scales are learned by, e.g. to give it a learning rate of its own."""
        for module in self.fake_quantizes():
            if isinstance(module, LearnedFakeQuantize):
                yield module.log_ratio

    def fake_quantizes(self) -> Iterator[FakeQuantize | DynamicFakeQuantize | CastFakeQuantize]:
        """Yield every fake-quantize module."""
        for module in self.modules():
            if isinstance(module, _ROUNDING):
                yield module

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled.

        Raises:
            PipelineError: always: torch.fx would not keep what the conversion has to know.
        """
        message = "a module prepared for training is not pickled"
        fix = "save its state_dict(), prepare the model again, and load it there"
        raise PipelineError(message, rule="not-picklable", fix=fix)
