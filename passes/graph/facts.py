"""The facts that hold of a graph; pipelines use them to check their order."""

from __future__ import annotations

from torch.fx import GraphModule

TRAINABLE = "trainable"
"""Holds for a graph captured for training, until training is finished."""


_FACTS = "quantfx_facts"


def facts_of(module: GraphModule) -> frozenset[str]:
    """Return the facts that hold of ``module``."""
    return frozenset(module.meta.get(_FACTS, ()))


def set_facts(module: GraphModule, facts: frozenset[str]) -> None:
    """Record the facts that hold of ``module``."""
    module.meta[_FACTS] = tuple(sorted(facts))
