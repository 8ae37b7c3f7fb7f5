"""Random weights under which every part of a new network matters.

Published initializations start residual branches, layer scales and norms at constants, many of them
zero: half of such a network computes nothing, and how it is quantized would go unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from quantfx.passes.inputs.leaves import leaves_in

_SMALL = 0.02  # the standard deviation that transformers are initialized with
# How far channels are apart, in standard deviations: the more, the less an output depends on its
# input; the less, the more it amplifies differences.
_OFFSETS = (0.0, 0.1, 0.2, 0.4, 0.8)
_DIFFERENCE = 0.01
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
    """Give batch norms statistics under which signals keep their size, and differences too.

    With those of the data, networks with random weights are chaotic: differences grow with every
    layer, that of quantization too, as they do not in trained ones. So the size is kept over all
    channels, and their offsets are as small as they can be for differences not to grow.

    Args:
        model: In eval mode.
        args: Positional inputs.
        kwargs: Keyword inputs.
    """
    norms = [each for each in model.modules() if isinstance(each, _BATCH_NORMS)]
    for offset in _OFFSETS if norms else ():
        measured = _Measured(offset)
        hooks = [norm.register_forward_pre_hook(measured) for norm in norms]
        exact = _floating(model(*args, **kwargs))
        for hook in hooks:
            hook.remove()
        near = _floating(model(*map(_nearby, args), **{k: _nearby(v) for k, v in kwargs.items()}))
        if float((near - exact).norm()) <= _DIFFERENCE * float(exact.norm()):
            return


class _Measured:
    """Gives a batch norm the size of what it reads."""

    def __init__(self, offset: float) -> None:
        self._offset = offset
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, _BATCH_NORMS)
        mean, variance = module.running_mean, module.running_var
        if mean is None or variance is None:
            return
        square = inputs[0].square().mean()
        spread = torch.empty_like(variance).uniform_(0.8, 1.25, generator=self._generator)
        variance.copy_(square * spread)
        apart = torch.empty_like(mean).normal_(generator=self._generator)
        mean.copy_(square.sqrt() * self._offset * apart)


def _nearby(value: Any) -> Any:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    noise = torch.empty_like(value).normal_(generator=torch.Generator().manual_seed(0))
    return value + _DIFFERENCE * value.std() * noise


def _floating(output: Any) -> Tensor:
    leaves = [each for each in leaves_in(output) if isinstance(each, Tensor)]
    return torch.cat([each.flatten() for each in leaves if each.is_floating_point()])
