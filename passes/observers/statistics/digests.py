"""Digests by which statistics identify their model and their data."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor
from torch.fx import GraphModule

from quantfx.passes.graph.graphs import all_graphs, constants
from quantfx.passes.graph.operator_name import operator_name

_LENGTH = 16


class ModelDigest(NamedTuple):
    """Identity of the model that a graph was captured from.

    Attributes:
        structure: Hash of operators, names and arguments of all graphs.
        weights: Hash of the stored tensors.
    """

    structure: str
    weights: str

    @classmethod
    def of(cls, graph: GraphModule) -> ModelDigest:
        """Return the digest of a captured graph."""
        structure, weights = hashlib.sha256(), hashlib.sha256()
        for path, module in all_graphs(graph):
            for node in module.graph.nodes:
                text = f"{path}/{node.name} {node.op} {operator_name(node)} "
                structure.update(f"{text}{node.args} {node.kwargs}\n".encode())
            for node, value in constants(module):
                weights.update(f"{path}/{node.name} ".encode())
                _update(weights, value)
        return cls(structure.hexdigest()[:_LENGTH], weights.hexdigest()[:_LENGTH])

    def __str__(self) -> str:
        return f"{self.structure}-{self.weights}"


def call_digest(leaves: Iterable[tuple[str, Any]]) -> str:
    """Return a hash of the inputs of one call, ``(path, leaf)``: dtypes, shapes and values."""
    digest = hashlib.sha256()
    for path, leaf in leaves:
        digest.update(f"{path} ".encode())
        if isinstance(leaf, Tensor):
            _update(digest, leaf)
        else:
            digest.update(repr(leaf).encode())
    return digest.hexdigest()[:_LENGTH]


def joined(digests: Iterable[str]) -> str:
    """Return one digest of several digests, in their order."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:_LENGTH]


def _update(digest: Any, value: Tensor) -> None:
    digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
    digest.update(raw_bytes(value))


def raw_bytes(value: Tensor) -> bytes:
    """Return the values in order, as bytes; without numpy, which torch does not require."""
    plain = value.detach().cpu().contiguous()
    return ctypes.string_at(plain.data_ptr(), plain.nbytes) if plain.numel() else b""
