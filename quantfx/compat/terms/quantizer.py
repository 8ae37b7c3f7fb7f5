"""The interface of PT2E quantizers, which write annotations on the nodes of a graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn
from torch.fx import GraphModule

from quantfx.compat.terms.specs import EdgeOrNode


class Quantizer(ABC):
    """Base of quantizers; any class with these methods works as well."""

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        """Return ``model``, rewritten for annotation as needed; by default unchanged."""
        return model

    @abstractmethod
    def annotate(self, model: GraphModule) -> Any:
        """Write ``meta["quantization_annotation"]`` on the nodes of ``model`` to be quantized."""

    @abstractmethod
    def validate(self, model: GraphModule) -> None:
        """Raise if the target does not support the annotated ``model``."""

    def prepare_obs_or_fq_callback(  # noqa: B027  # most quantizers have nothing to change
        self, model: GraphModule, edge_or_node_to_obs_or_fq: dict[EdgeOrNode, nn.Module]
    ) -> None:
        """Inspect or replace the observer of every annotated place before insertion."""
