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
                assert module.running_mean is not None
                assert module.running_var is not None
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.8, 1.25)
                if module.affine:
                    nn.init.uniform_(module.weight, 0.8, 1.25)
                    nn.init.normal_(module.bias, std=0.1)
    return model.eval()
