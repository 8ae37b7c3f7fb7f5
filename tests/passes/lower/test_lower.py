"""The lowering pass itself: which family gets what, reasons, and what it writes down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn
from torch.fx import GraphModule

from quantfx import backends
from quantfx.backends.onednn.family import OneDNN
from quantfx.backends.onednn.int8_layout import Int8Layout
from quantfx.passes.errors import ContractError, PipelineError
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site
from quantfx.passes.lower.lower import Lower
from quantfx.passes.pipeline.kernel_family import Candidate, Emission, KernelFamily
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.quant.lowered import lowered_nodes, site_of
from quantfx.patterns.loader import load
from quantfx.patterns.schema import overload
from tests import unchecked
from tests.export_cases import Net
from tests.models.small import cat_pool_net, mlp, residual_block
from tests.refusals import refused, warned

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
X86 = backends.get("x86")


def qdq(model: nn.Module, x: torch.Tensor) -> GraphModule:
    return unchecked.convert(model, (x,), X86)


def test_the_pipeline_as_text() -> None:
    text = (
        "tidy{dynamic=True}, hoist-quantize, include-zero, slice-splits, size-free-views, "
        "restore-layouts, form-regions, lower, merge-equal"
    )
    assert str(X86.lower_pipeline) == text
    assert Pipeline.parse(text).passes == X86.lower_pipeline.passes
    mixed = X86.lower_pipeline.replace("lower", Lower("bfloat16"))
    assert Pipeline.parse(str(mixed)).passes == mixed.passes
    with refused("unknown-name", PipelineError, site="float16", says="float_dtype"):
        Lower("float16")


def test_every_call_says_which_site_it_stands_for() -> None:
    lowered = X86.lower(qdq(residual_block(), torch.randn(2, 4, 8, 8)))
    calls = {each.site: each for _, each in lowered_nodes(lowered)}
    assert list(calls) == [Site("", "conv2d"), Site("", "conv2d_1")]
    first, second = calls.values()
    assert (first.template, first.kernel) == ("conv2d_unary_q", "qconv_pointwise")
    assert first.covers[-1] == first.output
    assert second.template == "conv2d_add_relu"
    assert second.output == "conv2d_1", "the sum behind it stays"
    packs = [node for node in lowered.graph.nodes if "prepack" in str(node.target)]
    assert [site_of(node) for node in packs] == list(calls)


def test_new_nodes_carry_scope_and_provenance() -> None:
    lowered = X86.lower(qdq(cat_pool_net(), X))
    for node, _ in lowered_nodes(lowered):
        assert node.meta["quantfx_by"] == "lower"
        assert "nn_module_stack" in node.meta
        assert isinstance(node.meta["val"], torch.Tensor)


@dataclass(frozen=True)
class Picky(OneDNN):
    """Takes no layer of more than eight channels."""

    name: ClassVar[str] = "picky"

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        if candidate.quantized("weight").meta["val"].shape[0] > 8:
            return "more than eight channels"
        return super().refuses(candidate, editor)


def test_a_refused_site_has_its_reason_everywhere() -> None:
    backend = replace(X86, kernels=(Picky(), Int8Layout()))
    module = qdq(mlp(), ROWS)
    with refused("no-kernel", ContractError, site="linear", says="1 planned"):
        backend.lower(module)
    with warned("no-kernel", site="linear"):
        lowered = backend.lower(module, strict=False)
    torch.testing.assert_close(lowered(ROWS), module(ROWS), rtol=1e-5, atol=1e-6)
    result = unchecked.quantize(mlp(), (ROWS,), backend=backend)
    missed, reached = result.report.sites
    assert (missed.kernel, missed.reason) == ("", "more than eight channels")
    assert (missed.status, reached.status) == ("missed", "kernel")
    assert (reached.kernel, reached.reason) == ("qlinear_pointwise", "")
    assert result.report.lowered == 1
    assert "missed its kernel" in str(result.report)
    with refused("no-kernel", ContractError, site="linear"):
        _ = result.module
    with refused("no-kernel", ContractError, site="linear"):
        result.compile()


@dataclass(frozen=True)
class Again(KernelFamily):
    """A family of somebody else: the float operator once more, for float results."""

    name: ClassVar[str] = "again"
    kernels: ClassVar[frozenset[str]] = frozenset({"qlinear_pointwise"})

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        return None if candidate.match.output is candidate.anchor else "more than a linear"

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        node = candidate.anchor
        call = editor.call(overload(node), node.args, like=node, before=node)
        return Emission(call, node, "again")


def test_the_first_family_that_takes_a_template_decides() -> None:
    """What it refuses is tried as a smaller variant, without relu and quantize."""
    backend = replace(X86, kernels=(Again(), *X86.kernels))
    module = qdq(mlp(), ROWS)
    lowering = backend.lowering(module)
    assert [site.kernel for site in lowering.sites] == ["again", "again"]
    assert torch.equal(lowering.module(ROWS), module(ROWS))


def test_without_kernels_or_recipe_it_says_what_is_missing() -> None:
    module = qdq(mlp(), ROWS)
    with refused("no-recipe", PipelineError, site="lower"):
        Pipeline((Lower(),)).run(module)
    with refused("no-kernels", PipelineError, site="x86"):
        replace(X86, kernels=()).lower(module)
    with refused("no-kernels", PipelineError, site="x86"):
        replace(X86, kernels=()).lowering(module, plans=False)
    with refused("pass-order", PipelineError, site="tidy", says="'qdq'"):
        X86.lower(unchecked.capture(mlp(), (ROWS,)))
    with refused("pass-order", PipelineError, site="tidy", says="'qdq'"):
        X86.lower(X86.lower(module))


FOREIGN = """
schema = 1
vocabulary = "vocabulary.toml"
[ops]
neg = ["aten.neg.default"]
[template.other_names]
group = "linear"
nodes.layer = { op = "linear", input = "$activation", weight = "$matrix", bias = "$b?" }
nodes.behind = { op = "relu", self = "layer", optional = true }
check = ["constant(matrix)"]
quant = { activation = "act", matrix = "linear_weight" }
kernel = "qlinear_pointwise"
[template.turned]
group = "conv"
nodes.layer = { op = "conv2d", input = "before", weight = "$w", bias = "$b?" }
nodes.before = { op = "neg", self = "$x" }
check = ["constant(w)"]
quant = { x = "act", w = "conv_weight" }
kernel = "qconv_pointwise"
"""


def test_templates_from_elsewhere_may_use_other_names_and_more_operators(tmp_path: Path) -> None:
    """Nothing of a match is dropped because a kernel does not know it."""
    file = tmp_path / "foreign.toml"
    file.write_text(FOREIGN)
    backend = backends.get("x86", patterns=load(file))
    result = unchecked.quantize(mlp(), (ROWS,), backend=backend)
    assert [site.kernel for site in result.report.sites] == ["qlinear_pointwise"] * 2
    torch.testing.assert_close(result.module(ROWS), result.quantized(ROWS), rtol=1e-5, atol=1e-6)
    turned = Net(lambda f, x: f(-x), nn.Conv2d(3, 4, 3)).eval()
    result = unchecked.quantize(turned, (X,), backend=backend)
    [site] = result.report.sites
    assert (site.kernel, site.reason) == ("", "conv2d.input reads neg")
