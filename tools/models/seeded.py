"""Reproducible random weights under which a deep network in eval mode keeps its signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

ModelT = TypeVar("ModelT", bound=nn.Module)


def seeded(make: Callable[[], ModelT], seed: int = 0) -> ModelT:
    """``make()`` in eval mode, equal for equal seeds; the global random state stays as it was.

    Convolutions keep the variance of what they read (He et al. 2015). The batch norms of a new
    network are the identity, so folding them wrongly would go unseen: they get statistics.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                _give_statistics(module)
    return model.eval()


def _give_statistics(norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    nn.init.normal_(norm.running_mean, std=0.1)
    nn.init.uniform_(norm.running_var, 0.8, 1.25)
    if norm.affine:
        nn.init.uniform_(norm.weight, 0.8, 1.25)
        nn.init.normal_(norm.bias, std=0.1)
