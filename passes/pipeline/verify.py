"""Structural verifiers that run after every pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.fx import GraphModule, Node

from quantfx.passes.errors import PassError
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.quant.annotation import META_KEY, annotation_of
from quantfx.passes.quant.lowered import site_of
from quantfx.passes.quant.qdq import (
    DEQUANTIZE_PER_TENSOR,
    dequantizes,
    has_qparams,
    qparams_of,
    quantizes,
)


class Fingerprint(NamedTuple):
    """Hashes of a module's graphs and their annotations; valid within one process."""

    structure: int
    annotations: int


def fingerprint(module: GraphModule) -> Fingerprint:
    """Return hashes that differ when any graph or annotation of ``module`` differs."""
    structure: list[object] = []
    annotations: list[object] = []
    for path, graph_module in all_graphs(module):
        structure.append(path)
        for node in graph_module.graph.nodes:
            structure.append((node.name, node.op, node.target, str(node.args), str(node.kwargs)))
            annotation = node.meta.get(META_KEY)
            if annotation is not None:
                annotations.append((path, node.name, annotation))
    return Fingerprint(hash(tuple(structure)), hash(tuple(annotations)))


def verify_structure(module: GraphModule) -> None:
    """Raise a ``PassError`` unless graphs are well formed and q/dq pairs and shared sites agree."""
    shared: dict[str, tuple[str, tuple[Any, ...]]] = {}
    for path, graph_module in all_graphs(module):
        try:
            graph_module.graph.lint()
        except RuntimeError as error:
            raise PassError(
                f"the pass left an invalid graph {path}: {error}", rule="invalid-graph", site=path
            ) from error
        for node in graph_module.graph.nodes:
            _verify_sharing(node, shared)
            if has_qparams(node):
                # A dequantize undoes its quantize.
                producer = node.args[0]
                if dequantizes(node) and isinstance(producer, Node) and quantizes(producer):
                    given, read = qparams_of(producer), qparams_of(node)
                    if given != read:
                        message = f"{node.name} reads {read}, but {producer.name} wrote {given}"
                        raise PassError(message, rule="invalid-graph", site=node.name)
            elif _is_float_op(node):
                _verify_no_integers(node)


def _verify_sharing(node: Node, shared: dict[str, tuple[str, tuple[Any, ...]]]) -> None:
    """Check that all quantized inputs of a sharing group read the same per-tensor qparams."""
    annotation = annotation_of(node)
    for slot, group in annotation.groups if annotation else ():
        dequantize = read_slot(node, slot) if slot else None
        if dequantize is None or dequantize.target is not DEQUANTIZE_PER_TENSOR:
            continue
        site, read = f"{node.name}.{slot}", qparams_of(dequantize)
        first, expected = shared.setdefault(group, (site, read))
        if read != expected:
            message = f"{first} and {site} share qparams, but read {expected} and {read}"
            raise PassError(message, rule="invalid-graph", site=str(site))


def _is_float_op(node: Node) -> bool:
    value = node.meta.get("val")
    return (
        node.op == "call_function" and isinstance(value, torch.Tensor) and value.is_floating_point()
    )


def _verify_no_integers(node: Node) -> None:
    """Check that no float operator reads a quantized tensor as if its integers were values."""
    if site_of(node) is not None:  # part of a kernel call, which takes integers
        return
    for producer in node.all_input_nodes:
        if quantizes(producer):
            message = f"{node.name} reads the integers of {producer.name}: a dq is missing"
            raise PassError(message, rule="invalid-graph", site=node.name)
