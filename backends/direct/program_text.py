"""The graph of a region as text, for operators whose arguments are tensors and text.

One line of JSON for each node. Constants are given in the order of their lines: the text says what
is computed, and the tensors say with what. It is packed into letters and digits, for compilers that
write it into C++ as it is (torch 2.13 escapes no quotes there).
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from quantfx.passes.graph.clone import set_tensor
from quantfx.passes.inputs.value_text import decode, decode_target, encode, encode_target


def write_program(graph: Graph) -> str:
    """Return the graph of a region as text.

    Raises:
        FileError: an argument of a node has no form in text.
    """
    lines: list[Any] = []
    for node in graph.nodes:
        if node.op == "call_function":
            lines.append([node.name, encode_target(node), encode(node.args), encode(node.kwargs)])
        elif node.op == "output":
            lines.append(["output", encode(node.args[0])])
        else:
            lines.append([node.name, node.op])
    plain = "\n".join(json.dumps(line) for line in lines)
    return base64.b64encode(zlib.compress(plain.encode())).decode()


def read_program(text: str, constants: list[Tensor]) -> GraphModule:
    """Return the graph module that ``text`` describes.

    Args:
        text: From ``write_program``.
        constants: One for each line that asks for it, in order.
    """
    module = GraphModule(nn.Module(), Graph())
    nodes: dict[str, Node] = {}
    remaining = iter(constants)
    plain = zlib.decompress(base64.b64decode(text)).decode()
    for line in map(json.loads, plain.splitlines()):
        if line[0] == "output":
            module.graph.output(decode(line[1], nodes))
        elif line[1] == "placeholder":
            nodes[line[0]] = module.graph.placeholder(line[0])
        elif line[1] == "get_attr":
            set_tensor(module, line[0], next(remaining))
            nodes[line[0]] = module.graph.get_attr(line[0])
        else:
            target, args, kwargs = (
                decode_target(line[1]),
                *(decode(each, nodes) for each in line[2:]),
            )
            nodes[line[0]] = module.graph.call_function(target, tuple(args), dict(kwargs))
    module.recompile()
    return module
