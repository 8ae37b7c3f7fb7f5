"""A graph with fake-quantize modules, which trains like any module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from torch import nn

from quantfx.passes.errors import PipelineError
from quantfx.passes.graph.checked_module import CheckedModule
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.layers.mode_node import BATCH_NORM_MODE, Mode
from quantfx.passes.layers.scaled_layer import BatchNormScale
from quantfx.passes.observers.cast_fake_quantize import CastFakeQuantize
from quantfx.passes.observers.dynamic_fake_quantize import DynamicFakeQuantize
from quantfx.passes.observers.fake_quantize import FakeQuantize
from quantfx.passes.observers.learned_fake_quantize import LearnedFakeQuantize

_ROUNDING = (FakeQuantize, DynamicFakeQuantize, CastFakeQuantize)


class QatModule(CheckedModule):
    """What ``prepare(..., qat=True)`` returns: float in, float out, rounded in between.

    ``train()`` and ``eval()`` switch batch norms, dropouts and the learning of ranges; both round.
    ``state_dict`` holds ranges, and which parts are frozen or switched off.

    With activation checkpointing, freeze observers and batch norms: the recomputation would see
    changed ranges and statistics.
    """

    def fake_quantize(self, enabled: bool = True) -> None:
        """Switch rounding on, or with False off: the module then computes as the float model."""
        for module in self.modules():
            if isinstance(module, (*_ROUNDING, BatchNormScale)):
                module.quantizing = enabled

    def freeze_observers(self, frozen: bool = True) -> None:
        """Keep the ranges of activations fixed; learned scales still train."""
        for module in self.fake_quantizes():
            if isinstance(module, FakeQuantize):
                module.frozen = frozen

    def freeze_batch_norm(self, frozen: bool = True) -> None:
        """Let batch norms in training use their running statistics and keep them fixed.

        Their parameters still train. Weights are rounded as they will be folded with the running
        statistics, so the last part of a training should use those.
        """
        for _, graph_module in all_graphs(self):
            for name, module in graph_module.named_children():
                if isinstance(module, Mode) and name.startswith(BATCH_NORM_MODE):
                    module.frozen = frozen

    def agree_within(self, group: Any) -> None:
        """Set the processes that agree on the ranges they observe.

        All of them must run the forward passes of the training. Calibrate in each process, or
        before DistributedDataParallel broadcasts the first process's buffers to all (its default).

        Args:
            group: A process group of torch.distributed; ``"world"``, the default, for all
                processes; None for each process by itself.
        """
        for module in self.fake_quantizes():
            if isinstance(module, FakeQuantize):
                module.group = group

    def scale_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of learned scales, e.g. to give them their own learning rate."""
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
            PipelineError: always: torch.fx would lose information that conversion needs.
        """
        message = "a module prepared for training is not pickled"
        fix = "save its state_dict(), prepare the model again, and load it there"
        raise PipelineError(message, rule="not-picklable", fix=fix)
