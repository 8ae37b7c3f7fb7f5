from __future__ import annotations

import copy
import pickle

import torch
from torch import nn
from torch.fx import GraphModule

from quantfx.backends.inductor.compile import CompiledModule
from quantfx.passes.lower.keep_packed import PackedWeight
from tests import unchecked

IMAGE = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0))


def lowered() -> GraphModule:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 5)).eval()
    return unchecked.quantize(model, (IMAGE,)).module


def packed(module: nn.Module) -> list[PackedWeight]:
    return [each for each in module.modules() if isinstance(each, PackedWeight)]


def test_weights_are_packed_at_the_first_call_and_kept() -> None:
    module = lowered()
    weights = packed(module)
    assert len(weights) == 2
    assert not any("prepack" in str(node.target) for node in module.graph.nodes)
    first = module(IMAGE)
    kept = [each._packed for each in weights]
    assert None not in kept
    assert torch.equal(module(IMAGE), first)
    assert all(each._packed is before for each, before in zip(weights, kept, strict=True))


def test_a_weight_that_was_written_to_is_packed_anew() -> None:
    module = lowered()
    before = module(IMAGE)
    with torch.no_grad():
        for name, value in module.named_buffers():
            if name.endswith("_s8"):
                value.neg_()
    after = module(IMAGE)
    assert not torch.allclose(after, before)
    assert torch.equal(copy.deepcopy(module)(IMAGE), after)


def test_copies_and_pickles_pack_for_themselves() -> None:
    module = lowered()
    expected = module(IMAGE)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert all(each._packed is None for each in packed(other))
        assert torch.equal(other(IMAGE), expected)


def test_a_compiler_sees_the_operators() -> None:
    module = lowered()
    with torch.no_grad():
        exported = torch.export.export(module, (IMAGE,))
    names = [str(node.target) for node in exported.graph.nodes]
    assert "onednn.qconv_prepack.default" in names
    assert "onednn.qlinear_prepack.default" in names
    compiled = CompiledModule(module)
    torch.testing.assert_close(compiled(IMAGE), module(IMAGE), rtol=1e-5, atol=1e-6)
