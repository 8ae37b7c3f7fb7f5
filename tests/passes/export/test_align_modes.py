"""What differs between training and evaluation is aligned by what it computes, or refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import quantfx
from quantfx.passes.errors import CaptureError
from tests.models.by_mode import ALIGNED, REFUSED, SHAPE, Attention, Base, OtherOrder
from tests.refusals import refused
from tests.unchecked import capture, prepare_qat

X = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def made(kind: type[Base]) -> Base:
    torch.manual_seed(0)
    return kind().train()


def run(module: nn.Module, seed: int, x: Tensor = X) -> Tensor:
    torch.manual_seed(seed)
    result: Tensor = module(x)
    return result


def require_same(module: GraphModule, model: nn.Module) -> None:
    """In both modes, with the same random numbers, and so are the gradients."""
    model = copy.deepcopy(model)
    for seed in range(3):
        results = run(module.train(), seed), run(model.train(), seed)
        torch.testing.assert_close(*results, rtol=0, atol=1e-6)
        for result in results:
            torch.autograd.backward(result.square().sum())
    for name in ("first", "second"):
        ours = module.get_parameter(f"{name}.weight").grad
        theirs = model.get_parameter(f"{name}.weight").grad
        assert ours is not None
        assert bool(ours.any())
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    results = run(module.eval(), 7), run(model.eval(), 7)
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ALIGNED)
def test_both_modes_are_the_models_own(kind: type[Base]) -> None:
    model = made(kind)
    graph = capture(model, (X,), training=True)
    require_same(graph, model)
    assert not torch.equal(run(graph.train(), 0), run(graph.eval(), 0)) or kind.__name__ == "Views"


@pytest.mark.parametrize("kind", ALIGNED)
def test_prepared_without_rounding_they_still_are_and_convert(kind: type[Base]) -> None:
    model = made(kind)
    module = prepare_qat(model, (X,))
    module.fake_quantize(False)
    require_same(module, model)
    module.fake_quantize(True)
    module.train()(X)
    result = quantfx.convert_qat(module)
    assert not result.quantized.graph.find_nodes(op="call_module")
    torch.testing.assert_close(run(result.quantized, 5), run(module.eval(), 5), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_computes_something_else_is_refused_by_name(kind: type[Base]) -> None:
    site, says = REFUSED[kind]
    with refused("other-in-training", CaptureError, site=site, fix="call eval()", says=says):
        capture(made(kind), (X,), training=True)


def test_the_same_order_of_elements_is_needed_not_the_same_sizes() -> None:
    x = torch.randn(6, 4, 8, generator=torch.Generator().manual_seed(0))

    class SameOrder(OtherOrder):
        def between(self, y: Tensor, x: Tensor) -> Tensor:
            return y.swapaxes(1, 0) if self.training else y.permute(1, 0, 2)

    graph, model = capture(made(SameOrder), (x,), training=True), made(SameOrder)
    for mode in (True, False):
        assert torch.equal(graph.train(mode)(x), model.train(mode)(x))


def test_all_is_aligned_when_sizes_are_free() -> None:
    class Free(Attention):
        def between(self, y: Tensor, x: Tensor) -> Tensor:
            n = y.shape[0]
            if self.training:
                y = y * y.new_empty((n, 1, 1)).bernoulli_(0.5)
            heads = y.view(n, 6, 2, 4).transpose(1, 2)
            p = 0.2 if self.training else 0.0
            mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads, dropout_p=p)
            return mixed.transpose(1, 2).contiguous().view(n, -1, 8)

    model = made(Free)
    free = ({0: torch.export.Dim("n", min=2, max=64)},)
    graph = capture(model, (X,), training=True, dynamic_shapes=free)
    for count in (4, 3, 9):
        x = torch.randn(count, 6, 8, generator=torch.Generator().manual_seed(count))
        for mode in (True, False):
            results = run(graph.train(mode), 1, x), run(model.train(mode), 1, x)
            torch.testing.assert_close(*results, rtol=0, atol=1e-6)


def test_a_path_chosen_at_random_is_refused_with_what_to_set() -> None:
    class LayerDrop(Base):
        def between(self, y: Tensor, x: Tensor) -> Tensor:
            return x if self.training and torch.rand([]) < 0.5 else y.relu()

    with refused("export-rejects", CaptureError, site="LayerDrop"):
        capture(made(LayerDrop), (X,), training=True)
