"""Multiply-accumulates of one node, from the shapes of its fake values.

``torch.utils.flop_counter`` fails on the fake values of a captured graph: it counts nothing for
scaled_dot_product_attention, LSTMs and products with vectors, and unrolls recurrent layers step by
step (torch 2.13). On real tensors it agrees with the formulas here, with two operations per
multiply-accumulate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

import torch
from torch.fx import Node

from quantfx.passes.graph.operator_name import is_bookkeeping, namespace, operator_name
from quantfx.patterns.schema import argument_value, is_operator_call
from quantfx.patterns.sizes import depends_on_data, likely

# Control flow computes nothing itself: the nodes of its graphs are counted, once each.
_CONTROL_FLOW = (
    "cond", "while_loop", "scan", "map_impl", "associative_scan", "invoke_subgraph",
    "wrap_with_autocast", "wrap_with_set_grad_enabled", "wrap_with_inference_mode", "wrap",
)  # fmt: skip
# They multiply matrices in ways that are not handled below.
_UNKNOWN = (
    "linalg_multi_dot", "chain_matmul", "_trilinear", "_native_multi_head_attention",
    "_transformer_encoder_layer_fwd", "_scaled_mm", "_scaled_grouped_mm", "_grouped_mm",
    "_int_mm", "_weight_int8pack_mm", "_weight_int4pack_mm", "convolution_overrideable",
)  # fmt: skip


def macs_of(node: Node) -> int | None:
    """Return the multiply-accumulates of ``node``; None if they cannot be counted.

    0 for operators that multiply no matrices. Free sizes count as in the example. Operators of
    other libraries and sizes that depend on data cannot be counted. A loop's graph counts once, and
    so does every branch of a choice.
    """
    if not is_operator_call(node):
        return _of_other(node)
    if namespace(node) != "aten":
        # Each of the two rounds, or decomposes an operator, element by element.
        return 0 if namespace(node) in ("quantized_decomposed", "prims") else None
    name = operator_name(node).split(".")[1]
    formula = _FORMULAS.get(name)
    if formula is None:
        return None if name in _UNKNOWN else 0
    try:
        return formula(node)
    except _UnknownShape:
        return None


def _of_other(node: Node) -> int | None:
    if is_bookkeeping(node):
        return 0
    name = operator_name(node)
    if not name.startswith("higher_order."):
        return None
    return 0 if name.removeprefix("higher_order.") in _CONTROL_FLOW else None


class _UnknownShape(Exception):
    """A tensor has no fake value, or a size that depends on data."""


def _shape(value: object) -> tuple[int, ...]:
    fake = value.meta.get("val") if isinstance(value, Node) else value
    if not isinstance(fake, torch.Tensor):
        raise _UnknownShape
    if depends_on_data(fake):
        raise _UnknownShape
    return tuple(likely(size, 0) for size in fake.shape)


def _of(node: Node, name: str) -> tuple[int, ...]:
    return _shape(argument_value(node, name))


def _product(*names: str) -> Callable[[Node], int]:
    """Count one sum over the last dimension of the first factor per element of the result.

    ``addbmm`` sums over its batch as well.
    """

    def formula(node: Node) -> int:
        first = _of(node, names[0])
        terms = prod(first[:1] + first[-1:]) if "batch" in names else first[-1]
        return prod(_shape(node)) * terms

    return formula


def _convolution(node: Node) -> int:
    """Count one sum over a filter per element of the result, ``(out, in / groups, *kernel)``."""
    return prod(_shape(node)) * prod(_of(node, "weight")[1:])


def _transposed(node: Node) -> int:
    """Count one filter per element of the input, ``(in, out / groups, *kernel)``."""
    return prod(_of(node, "input")) * prod(_of(node, "weight")[1:])


def _any_convolution(node: Node) -> int:
    return _transposed(node) if argument_value(node, "transposed") else _convolution(node)


def _attention(node: Node) -> int:
    """Count scores of all query-key pairs and sums of values; a causal mask saves nothing."""
    query, key, value = (_of(node, name) for name in ("query", "key", "value"))
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _bilinear(node: Node) -> int:
    return prod(_of(node, "input1")[:-1]) * prod(_of(node, "weight"))


def _recurrent(node: Node) -> int:
    """Count the matrices of all layers and directions for each row of each step."""
    rows = prod(_shape(node.args[0])[:-1])
    shapes = [_shape(value) for value in argument_value(node, "params")]
    return rows * sum(prod(shape) for shape in shapes if len(shape) == 2)


def _cell(node: Node) -> int:
    rows = prod(_of(node, "input")[:-1])
    return rows * sum(prod(_of(node, name)) for name in ("w_ih", "w_hh"))


def _tensordot(node: Node) -> int:
    first = _of(node, "self")
    dims: list[int] = argument_value(node, "dims_self")
    return prod(_shape(node)) * prod(first[dim] for dim in dims)


def _einsum(node: Node) -> int:
    """Count one product for each combination of all labels of two tensors."""
    shapes = [_shape(value) for value in argument_value(node, "tensors")]
    if len(shapes) == 1:
        return 0
    if len(shapes) > 2:
        raise _UnknownShape  # torch chooses the order of the products
    inputs = str(argument_value(node, "equation")).replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for labels, shape in zip(inputs, shapes, strict=True):
        for label, size in zip(_written_out(labels, len(shape)), shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return prod(sizes.values())


def _written_out(labels: str, dimensions: int) -> Iterable[str]:
    """Give each dimension of ``...`` its own label, counted from the right."""
    before, dots, behind = labels.partition("...")
    if not dots:
        return labels
    count = dimensions - len(before) - len(behind)
    return [*before, *(f"...{count - index}" for index in range(count)), *behind]


_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "mkldnn_convolution")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_CELLS = ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
_ATTENTION = (
    "scaled_dot_product_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
)

_FORMULAS: dict[str, Callable[[Node], int]] = {
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    **dict.fromkeys(_TRANSPOSED, _transposed),
    **dict.fromkeys(("convolution", "_convolution"), _any_convolution),
    **dict.fromkeys(_ATTENTION, _attention),
    **dict.fromkeys(_RECURRENT, _recurrent),
    **dict.fromkeys(_CELLS, _cell),
    "linear": _product("input"),
    **dict.fromkeys(("mm", "bmm", "matmul", "mv", "dot", "vdot", "inner"), _product("self")),
    "addmm": _product("mat1"),
    "_addmm_activation": _product("mat1"),
    "addmv": _product("mat"),
    "baddbmm": _product("batch1"),
    "addbmm": _product("batch1", "batch"),
    "bilinear": _bilinear,
    "tensordot": _tensordot,
    "einsum": _einsum,
}
