from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.fx import GraphModule

from quantfx.backends.x86 import x86
from quantfx.passes.errors import PassError
from quantfx.passes.pipeline.verify import fingerprint, verify_structure
from quantfx.passes.quant.qdq import dequantizes, quantizes
from tests.models.small import cat_pool_net, mlp
from tests.refusals import refused
from tests.unchecked import convert

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def quantized() -> GraphModule:
    return convert(mlp(), (X,), x86())


def wrong_scale(module: GraphModule) -> None:
    dq = next(n for n in module.graph.nodes if dequantizes(n) and quantizes(n.args[0]))
    dq.update_arg(1, 0.5)


def dropped_dequantize(module: GraphModule) -> None:
    dq = next(n for n in module.graph.nodes if dequantizes(n) and quantizes(n.args[0]))
    dq.replace_all_uses_with(dq.args[0])


def use_before_definition(module: GraphModule) -> None:
    node = next(n for n in module.graph.nodes if quantizes(n))
    node.prepend(next(iter(node.users)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (wrong_scale, "invalid-graph: dequantize_per_tensor_default"),
        (dropped_dequantize, "invalid-graph: linear"),
        (use_before_definition, "invalid-graph"),
    ],
)
def test_damage_is_found(damage: Callable[[GraphModule], None], message: str) -> None:
    module = quantized()
    verify_structure(module)
    damage(module)
    with refused(message, PassError):
        verify_structure(module)


def test_the_fingerprint_sees_structure_literals_and_annotations() -> None:
    module = quantized()
    before = fingerprint(module)
    assert fingerprint(module) == before
    node = next(n for n in module.graph.nodes if "quantfx" in n.meta)
    annotation = node.meta.pop("quantfx")
    assert fingerprint(module).structure == before.structure
    assert fingerprint(module).annotations != before.annotations
    node.meta["quantfx"] = annotation
    wrong_scale(module)
    assert fingerprint(module).structure != before.structure


def test_sites_that_share_must_read_the_same_qparams() -> None:
    x = torch.randn(2, 3, 16, 16)
    module = convert(cat_pool_net(), (x,), x86())
    [cat] = module.graph.find_nodes(op="call_function", target=torch.ops.aten.cat.default)
    dq = cat.args[0][1]
    for node in (dq, dq.args[0]):  # the pair still agrees, only the group does not
        node.update_arg(1, 0.5)
    with refused("invalid-graph", PassError, site="cat.tensors.1", says=r"and \(0\.5"):
        verify_structure(module)
