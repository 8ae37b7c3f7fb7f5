"""What a PT2E quantizer is: something that writes annotations on the nodes of a graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn
from torch.fx import GraphModule

from quantfx.compat.terms.specs import EdgeOrNode


class Quantizer(ABC):
    """Base of quantizers; one of any other class with these methods is taken as well."""

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        """Return ``model``, rewritten as needed to be annotated; by default as it is."""
        return model

    @abstractmethod
    def annotate(self, model: GraphModule) -> Any:
        """Write ``meta["quantization_annotation"]`` on the nodes of ``model`` to be quantized."""

    @abstractmethod
    def validate(self, model: GraphModule) -> None:
        """Raise if the annotated ``model`` is not one the target supports."""

    def prepare_obs_or_fq_callback(  # noqa: B027  # most quantizers have nothing to change
        self, model: GraphModule, edge_or_node_to_obs_or_fq: dict[EdgeOrNode, nn.Module]
    ) -> None:
        """Look at, or replace, the observer of every annotated place before they are inserted."""
