"""Graph modules as plain data and tensors, and back.

Kept is everything by which passes and people know a graph: names and order of nodes, annotations,
modules of origin, shapes, nested graphs, shared tensors. Stack traces are not kept: they hold paths
and lines of the user's source.

torch.fx generates code from decoded data. So decoding first checks that every name is an identifier
and every target an operator.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from quantfx.passes.errors import FileError
from quantfx.passes.graph.checked_module import CheckedModule
from quantfx.passes.graph.clone import recompile, set_tensor
from quantfx.passes.graph.editor import PROVENANCE_KEY
from quantfx.passes.graph.facts import facts_of, set_facts
from quantfx.passes.graph.graphs import attribute
from quantfx.passes.graph.remark import decode_remark, encode_remark
from quantfx.passes.graph.scopes import qualified_name
from quantfx.passes.graph.silent_modules import (
    SilentModule,
    set_silent_modules,
    silent_modules,
)
from quantfx.passes.inputs.calling_convention import encode_convention, set_convention
from quantfx.passes.inputs.contract import InputContract, contract_of, set_contract
from quantfx.passes.inputs.value_text import decode, decode_target, encode, encode_target
from quantfx.passes.pipeline.record import PassRecord, records_of, set_records
from quantfx.passes.pipeline.vanished import Vanished
from quantfx.passes.quant.annotation import GROUP_KEY, annotation_of, set_annotation
from quantfx.passes.quant.nibbles import holds_nibbles, pack_nibbles, unpack_nibbles
from quantfx.saving.annotation_text import decode_annotation, encode_annotation
from quantfx.saving.fake_text import FakeReader, FakeWriter

_SCOPE = "nn_module_stack"
# Meta that passes, and users of PT2E, write on nodes as text.
_TEXTS = (GROUP_KEY, PROVENANCE_KEY, "quantization_tag")
_DOTTED = re.compile(r"(?!__)\w+(\.(?!__)\w+)*", re.ASCII)


def is_plain(tensor: Tensor) -> bool:
    """Whether files can store a tensor: dense, with data, and not of a subclass."""
    dense = tensor.layout is torch.strided and not tensor.is_meta
    return dense and type(tensor.detach()) is Tensor


class GraphWriter:
    """Turns a graph module into plain data.

    Attributes:
        tensors: The parameters and buffers that the graph reads, by the keys in the data.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._keys: dict[tuple[int, bool], str] = {}
        self._fakes = FakeWriter()

    def encode(self, module: GraphModule) -> dict[str, Any]:
        """Return ``module`` as plain data.

        Raises:
            FileError: it holds something that files cannot store; names it.
        """
        return {
            "graph": self._graph(module),
            "sizes": self._fakes.sizes,
            "facts": sorted(facts_of(module)),
            "records": [_encoded_record(record) for record in records_of(module)],
            "silent": [asdict(each) for each in silent_modules(module)],
            "inputs": None if (contract := contract_of(module)) is None else contract.to_dict(),
        }

    def _graph(self, module: GraphModule) -> dict[str, Any]:
        state: dict[str, Any] = {}
        graphs: dict[str, Any] = {}
        for node in module.graph.find_nodes(op="get_attr", sort=True):
            target = str(node.target)
            value = attribute(module, target)
            if target in state or target in graphs:
                continue
            if isinstance(value, GraphModule):
                graphs[target] = self._graph(value)
            else:
                state[target] = self._encode_stored(node, value)
        return {
            "nodes": [self._node(node) for node in module.graph.nodes],
            "state": state,
            "graphs": graphs,
            "convention": encode_convention(module.graph),
        }

    def _encode_stored(self, node: Node, value: object) -> dict[str, Any]:
        if not isinstance(value, Tensor) or not is_plain(value):
            raise FileError(
                f"node '{node.name}' reads '{node.target}', a {type(value).__name__}: files hold "
                "plain dense tensors only",
                rule="no-text-form",
                site=node.name,
            )
        packed = holds_nibbles(node)
        if (id(value), packed) not in self._keys:
            key = str(len(self.tensors))
            self._keys[id(value), packed] = key
            self.tensors[key] = pack_nibbles(value) if packed else value
        return {
            "tensor": self._keys[id(value), packed],
            "parameter": isinstance(value, nn.Parameter),
            "requires_grad": value.requires_grad,
        } | ({"packed": True} if packed else {})

    def _node(self, node: Node) -> dict[str, Any]:
        if node.op == "call_module":
            raise FileError(
                f"node '{node.name}' calls the module '{node.target}': files hold graphs of "
                "operators, such as capture and quantize make them",
                rule="no-text-form",
                site=node.name,
            )
        annotation = annotation_of(node)
        scope: Mapping[str, tuple[str, object]] = node.meta.get(_SCOPE) or {}
        called = node.op == "call_function"
        data = {
            "op": node.op,
            "name": node.name,
            "target": encode_target(node) if called else str(node.target),
            "args": _encode_value(node, node.args),
            "kwargs": _encode_value(node, node.kwargs),
            "value": self._fakes.encode(node.meta.get("val")),
            "annotation": None if annotation is None else encode_annotation(annotation),
            "scope": [[key, path, qualified_name(kind)] for key, (path, kind) in scope.items()],
        }
        texts = {key: node.meta[key] for key in _TEXTS if isinstance(node.meta.get(key), str)}
        return {key: value for key, value in (data | texts).items() if value not in (None, [])}


def decode_graph(data: dict[str, Any], tensors: Mapping[str, Tensor]) -> GraphModule:
    """Return the graph module that ``data`` describes.

    Args:
        data: From ``GraphWriter.encode``.
        tensors: Tensors that came with it.

    Raises:
        FileError: this torch lacks an operator, or a name is not valid.
        Exception: of any kind, if ``data`` is damaged.
    """
    stored: dict[tuple[str, bool], Tensor] = {}
    module = _decode_graph(data["graph"], tensors, stored, FakeReader(data["sizes"]))
    set_facts(module, frozenset(data["facts"]))
    set_records(module, tuple(_record(record) for record in data["records"]))
    set_silent_modules(module, tuple(SilentModule(**each) for each in data["silent"]))
    set_contract(module, data["inputs"] and InputContract.from_dict(data["inputs"]))
    module.graph.lint()
    recompile(module)
    return module


def _decode_graph(
    data: dict[str, Any],
    tensors: Mapping[str, Tensor],
    stored: dict[tuple[str, bool], Tensor],
    fakes: FakeReader,
) -> GraphModule:
    module = CheckedModule(nn.Module(), Graph())
    module.training = False
    for target, inner in data["graphs"].items():
        module.add_submodule(_dotted(target), _decode_graph(inner, tensors, stored, fakes))
    for target, entry in data["state"].items():
        key = entry["tensor"], entry["parameter"]
        if key not in stored:  # one tensor under two names stays one
            value = tensors[key[0]].requires_grad_(entry["requires_grad"])
            value = unpack_nibbles(value) if entry.get("packed") else value
            stored[key] = nn.Parameter(value, value.requires_grad) if key[1] else value
        set_tensor(module, _dotted(target), stored[key])
    nodes: dict[str, Node] = {}
    for each in data["nodes"]:
        node = _decode_node(module.graph, each, nodes)
        nodes[node.name] = node
        if "value" in each:
            node.meta["val"] = fakes.decode(each["value"])
        if "annotation" in each:
            set_annotation(node, decode_annotation(each["annotation"]))
        if "scope" in each:
            node.meta[_SCOPE] = {key: (path, kind) for key, path, kind in each["scope"]}
        node.meta |= {key: str(each[key]) for key in _TEXTS if key in each}
    set_convention(module.graph, data["convention"])
    return module


def _decode_node(graph: Graph, data: dict[str, Any], nodes: Mapping[str, Node]) -> Node:
    op, name = data["op"], data["name"]
    if op not in ("placeholder", "get_attr", "call_function", "output"):
        raise FileError(
            f"node '{name}' is a '{op}', which files do not hold", rule="no-text-form", site=name
        )
    target = data["target"]
    if op == "call_function":
        target = _target(target, name)
    elif op == "get_attr":
        attribute(cast(GraphModule, graph.owning_module), _dotted(target))
    else:
        _identifier(target)
    args = tuple(decode(data.get("args", []), nodes))
    kwargs = {_identifier(key): decode(v, nodes) for key, v in data.get("kwargs", {}).items()}
    node = graph.create_node(op, target, args, kwargs, _identifier(name))
    if node.name != name:
        raise FileError(f"two nodes are called '{name}'", rule="taken-name", site=name)
    return node


def _target(target: str, name: str) -> Any:
    try:
        return decode_target(target)
    except FileError as error:
        raise error.within(f"node '{name}'", FileError) from None


def _encoded_record(record: PassRecord) -> dict[str, Any]:
    """Return a record without lines of the user's code."""
    vanished = [{**vars(each), "code": None} for each in record.vanished]
    remarks = [encode_remark(remark) for remark in record.remarks]
    return {**vars(record), "remarks": remarks, "vanished": vanished}


def _record(data: dict[str, Any]) -> PassRecord:
    fields: dict[str, Any] = {
        "remarks": tuple(map(decode_remark, data["remarks"])),
        "vanished": tuple(Vanished(**each) for each in data["vanished"]),
    }
    return PassRecord(**(data | fields))


def _encode_value(node: Node, value: Any) -> Any:
    try:
        if isinstance(value, tuple):
            return [encode(item) for item in cast(tuple[object, ...], value)]
        return {key: encode(item) for key, item in value.items()} or None
    except FileError as error:
        raise error.within(f"node '{node.name}'", FileError) from None


def _identifier(name: str) -> str:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise FileError(f"{name!r} is not a name", rule="damaged-file", site=repr(name))
    return name


def _dotted(target: str) -> str:
    if not _DOTTED.fullmatch(target):
        raise FileError(
            f"{target!r} is not the path of a tensor", rule="damaged-file", site=repr(target)
        )
    return target
