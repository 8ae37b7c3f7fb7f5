"""The facts that hold of a graph, by which pipelines check their order."""

from __future__ import annotations

from torch.fx import GraphModule

TRAINABLE = "trainable"
"""Holds of a graph that was captured for training, until its training is over."""


_FACTS = "quantfx_facts"


def facts_of(module: GraphModule) -> frozenset[str]:
    """Return the facts that hold of ``module``."""
    return frozenset(module.meta.get(_FACTS, ()))


def set_facts(module: GraphModule, facts: frozenset[str]) -> None:
    """Record the facts that hold of ``module``."""
    module.meta[_FACTS] = tuple(sorted(facts))
