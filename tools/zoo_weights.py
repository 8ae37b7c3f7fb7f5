"""Random weights under which every part of a new network matters.

Published initializations start residual branches, layer scales and norms at constants, many of them
zero: half of such a network computes nothing, and how it is quantized would go unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_SMALL = 0.02  # the standard deviation that transformers are initialized with
# Of channels, in standard deviations. Without it, hard-swish and its kind double every difference
# within a few layers, that of quantization too; with more, outputs hardly depend on the input.
_OFFSET = 0.6
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@torch.no_grad()
def wake(model: nn.Module) -> None:
    """Give random values to parameters that hold one constant, as training would.

    1. a bias -> small values around the constant
    2. another vector (a norm's weight, a layer's scale) -> 0.5 to 1
    3. a number of 0 (the gain of a branch) -> 0.5
    4. another tensor -> small values around the constant
    """
    for name, parameter in model.named_parameters():
        first = parameter.flatten()[:1]
        if not parameter.is_floating_point() or not bool((parameter == first).all()):
            continue
        if parameter.numel() == 1:
            parameter.masked_fill_(parameter == 0, 0.5)
        elif parameter.numel() == max(parameter.shape) and not name.endswith("bias"):
            parameter.uniform_(0.5, 1.0)
        else:
            parameter.add_(torch.randn_like(parameter), alpha=_SMALL)


@torch.no_grad()
def settle(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Give batch norms statistics that keep the size of what they read, over all channels.

    Not those of the data: with means subtracted channel by channel, networks with random weights
    are chaotic.

    Args:
        model: In eval mode.
        args: Positional inputs.
        kwargs: Keyword inputs.
    """

    def measured(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, _BATCH_NORMS)
        mean, variance = module.running_mean, module.running_var
        if mean is None or variance is None:
            return
        square = inputs[0].square().mean()
        variance.copy_(square * torch.empty_like(variance).uniform_(0.8, 1.25))
        mean.copy_(square.sqrt() * _OFFSET * torch.randn_like(mean))

    norms = [each for each in model.modules() if isinstance(each, _BATCH_NORMS)]
    hooks = [norm.register_forward_pre_hook(measured) for norm in norms]
    model(*args, **kwargs)
    for hook in hooks:
        hook.remove()
