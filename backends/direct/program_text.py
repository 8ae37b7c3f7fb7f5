"""The graph of a region as text, for operators whose arguments are tensors and text.

One line of JSON for each node. Constants are passed separately, in the order of their lines. The
text is packed into letters and digits, because compilers write it into C++ unescaped (torch 2.13
escapes no quotes there).
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from quantfx.passes.graph.clone import set_tensor
from quantfx.passes.graph.graphs import constant, constants
from quantfx.passes.inputs.value_text import decode, decode_target, encode, encode_target

# Bytes between the starts of packed constants.
_ALIGNMENT = 64


def write_program(module: GraphModule, *, packed: bool = False) -> str:
    """Return the graph of a region as text.

    Args:
        module: The graph with its constants.
        packed: Whether the constants are passed as ``pack_constants`` returns them.

    Raises:
        FileError: an argument of a node has no form in text.
    """
    lines: list[Any] = []
    start = 0
    for node in module.graph.nodes:
        value = constant(module, node)
        if node.op == "call_function":
            lines.append([node.name, encode_target(node), encode(node.args), encode(node.kwargs)])
        elif node.op == "output":
            lines.append(["output", encode(node.args[0])])
        elif packed and value is not None:
            lines.append([node.name, node.op, encode(value.dtype), list(value.shape), start])
            start += _padded(value)
        else:
            lines.append([node.name, node.op])
    plain = "\n".join(json.dumps(line) for line in lines)
    return base64.b64encode(zlib.compress(plain.encode())).decode()


def pack_constants(module: GraphModule) -> Tensor:
    """Return the constants of a region, concatenated as one-dimensional uint8.

    Operators take one tensor faster than a hundred.
    """
    values = [value for _, value in constants(module)]
    memory = torch.zeros(sum(map(_padded, values)), dtype=torch.uint8)
    start = 0
    for value in values:
        flat = value.detach().contiguous().reshape(-1).view(torch.uint8)
        memory[start : start + flat.numel()] = flat
        start += _padded(value)
    return memory


def _padded(value: Tensor) -> int:
    return -(-value.numel() * value.element_size() // _ALIGNMENT) * _ALIGNMENT


def read_program(text: str, given: list[Tensor]) -> GraphModule:
    """Return the graph module that ``text`` describes.

    Args:
        text: From ``write_program``.
        given: Constants in the order of their lines; or all packed in one tensor.
    """
    module = GraphModule(nn.Module(), Graph())
    nodes: dict[str, Node] = {}
    remaining = iter(given)
    plain = zlib.decompress(base64.b64decode(text)).decode()
    for line in map(json.loads, plain.splitlines()):
        if line[0] == "output":
            module.graph.output(decode(line[1], nodes))
        elif line[1] == "placeholder":
            nodes[line[0]] = module.graph.placeholder(line[0])
        elif line[1] == "get_attr":
            value = next(remaining) if len(line) == 2 else _unpacked(given[0], *line[2:])
            set_tensor(module, line[0], value)
            nodes[line[0]] = module.graph.get_attr(line[0])
        else:
            target, args, kwargs = (
                decode_target(line[1]),
                *(decode(each, nodes) for each in line[2:]),
            )
            nodes[line[0]] = module.graph.call_function(target, tuple(args), dict(kwargs))
    module.recompile()
    return module


def _unpacked(memory: Tensor, dtype: Any, shape: list[int], start: int) -> Tensor:
    kind = decode(dtype, {})
    size = math.prod(shape) * kind.itemsize
    return memory[start : start + size].view(kind).view(shape)
