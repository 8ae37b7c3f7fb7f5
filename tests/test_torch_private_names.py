"""Names of torch 2.13 without a public counterpart still mean what the one file using each expects.

If one of these fails on another torch, the file named here is the one to mend.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule, symbolic_trace
from torch.utils import _pytree as pytree

from quantfx.passes.clone import clone
from quantfx.patterns.schema import resolve_op, schema_arguments

WRITTEN_FOR = (2, 13)


def test_the_version_is_the_one_these_names_were_checked_on() -> None:
    assert tuple(map(int, torch.__version__.split(".")[:2])) == WRITTEN_FOR


def test_patterns_schema_importing_decomposed_registers_the_operators() -> None:
    import quantfx.passes.qdq

    assert quantfx.passes.qdq.QUANTIZE_PER_TENSOR is (
        torch.ops.quantized_decomposed.quantize_per_tensor.default
    )


def test_patterns_schema_overloads_have_a_schema_with_aliases() -> None:
    names = [argument.name for argument in schema_arguments(resolve_op("aten.add_.Tensor"))]
    assert names == ["self", "other", "alpha"]
    alias = schema_arguments(resolve_op("aten.add_.Tensor"))[0].alias_info
    assert alias is not None
    assert alias.is_write


def test_passes_clone_the_calling_convention_is_a_codegen_of_the_graph() -> None:
    class Pair(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": x + 1}

    exported = torch.export.export(Pair(), (torch.ones(2),)).module(check_guards=False)
    assert isinstance(exported, GraphModule)
    copy = clone(exported)
    copy.recompile()
    assert list(copy(torch.ones(2))) == ["y"]


def test_passes_calibrate_leaves_of_nested_inputs() -> None:
    assert pytree.tree_leaves(((1, [2]), {"a": 3})) == [1, 2, 3]


def test_passes_clone_a_traced_module_without_pytrees_works_too() -> None:
    class Add(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    copy = clone(symbolic_trace(Add()))
    copy.recompile()
    assert float(copy(torch.ones(()))) == 2
