"""What is annotated is lowerable: every template, and every activation it takes, has its kernel."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
from torch import Tensor, nn

import quantfx
from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.backends.x86 import pattern_set
from quantfx.passes.report.contract import PlannedMatch, planned_matches
from quantfx.passes.report.outcome import SiteOutcome
from quantfx.patterns.loader import load
from quantfx.patterns.template import Template
from quantfx.tools.doctor.template_examples import EXAMPLES, Example
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.activations import ACTIVATIONS

# Also what only prepared plans compute, which without them has no kernel to reach.
X86 = backends.get("x86", patterns=pattern_set(plans=True))
XPU = backends.get("xpu")
TEMPLATES = {template.name: template for template in X86.recipe.patterns.templates}

STEPS = 1  # a tie may round to the other side
ERROR = 1e-5  # of the largest magnitude, where the result is float

# The lowered module keeps a residual sum as an operator of its own; compiling takes it in.
SUM_APART = {
    "conv2d_add": "qconv_pointwise",
    "linear_add": "qlinear_pointwise",
    "linear_add_dynamic": "qlinear_pointwise.tensor",
}


# What the kernel reads it rounds itself, so that there is nothing to compare it with: its own tests
# hold it against a reference (tests/backends/recurrent).
ROUNDED_INSIDE = load("recurrent").names


class Activated(nn.Module):
    """A model with an activation behind it."""

    def __init__(self, model: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.model, self.activation = model, activation

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.activation(self.model(*inputs))


def activated() -> Iterator[tuple[str, str, str]]:
    """Yield template, example it is built on, activation: all that the patterns name."""
    for template in TEMPLATES.values():
        for node in template.nodes[1:]:
            base = template.name if node.optional else "linear"
            for op in node.ops if node.optional or template.name == "linear_wide" else ():
                yield template.name, base, op.name


def quantized(
    example: Example, model: nn.Module | None = None, backend: Backend = X86
) -> quantfx.Result:
    inputs = example.inputs()
    return unchecked.quantize(
        model or example.model(), inputs, backend=backend, config=example.config
    )


@cache
def quantized_example(name: str) -> quantfx.Result:
    return quantized(EXAMPLES[name])


def matches(template: Template, result: quantfx.Result) -> tuple[list[PlannedMatch], list[str]]:
    """Return the matches of ``template``, and the labels of all others."""
    left = TEMPLATES[template.becomes] if template.becomes else template
    labels = {variant.label for variant in left.variants()}
    planned = planned_matches(result.quantized)
    ours = [match for match in planned if match.annotation.template in labels]
    return ours, [m.annotation.template for m in planned if m not in ours]


def the_site(template: Template, result: quantfx.Result) -> SiteOutcome:
    """Return the one site of ``template``."""
    (match, *_), _ = matches(template, result)
    [site] = [site for site in result.report.sites if site.site == match.site]
    return site


def lowers_to(template: Template) -> str:
    """Return what computes a match in the lowered module."""
    if template.reach == "fused":
        return "dq-op-q"
    if template.reach == "layout":
        return f"int8 {template.name}"
    return SUM_APART.get(template.name, template.kernel)


def check_kernels(template: Template, result: quantfx.Result) -> None:
    """The lowered kernel is the one promised, and with sums fused it computes what it should."""
    site = the_site(template, result)
    assert (site.kernel, site.reason) == (lowers_to(template), "")
    compared = result.compare_sites()
    wrong = [each for each in compared if not each.within(STEPS, ERROR)]
    assert not wrong, wrong
    kernels = [each.kernel for each in compared if each.site == site.site]
    if template.name in ROUNDED_INSIDE:
        assert not kernels
        return
    expected = {
        "kernel": [template.kernel],
        "loop": [template.kernel],
        "layout": [lowers_to(template)],
        "fused": [],
    }
    assert kernels == expected[template.reach]


def test_every_template_has_an_example() -> None:
    assert set(EXAMPLES) == set(X86.recipe.patterns.names)
    assert set(XPU.recipe.patterns.names) <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_has_one_match_of_its_template(name: str) -> None:
    template = TEMPLATES[name]
    result = quantized_example(name)
    (match, *more), others = matches(template, result)
    assert len(more) == bool(template.becomes), "attention becomes two products"
    annotation = match.annotation
    assert (annotation.mode, annotation.reach) == (template.mode, template.reach)
    # What only passes int8 on needs somebody who makes it; nothing else needs company.
    assert set(others) <= ({"conv2d", "linear"} if template.when == "inputs_quantized" else set())


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_template_reaches_its_kernel(name: str) -> None:
    check_kernels(TEMPLATES[name], quantized_example(name))


@pytest.mark.parametrize(("name", "base", "activation"), list(activated()))
def test_a_template_reaches_its_kernel_with_every_activation(
    name: str, base: str, activation: str
) -> None:
    example, template = EXAMPLES[base], TEMPLATES[name]
    model = seeded(lambda: Activated(example.make(), ACTIVATIONS[activation][0]))
    result = quantized(example, model)
    [match], _ = matches(template, result)
    assert match.annotation.template != base, "the activation is part of the match"
    check_kernels(template, result)


@pytest.mark.parametrize("name", XPU.recipe.patterns.names)
def test_a_template_of_xpu_is_lowered_to_its_kernel(name: str) -> None:
    template = XPU.recipe.patterns[name]
    site = the_site(template, quantized(EXAMPLES[name], backend=XPU))
    assert (site.kernel, site.reason) == (lowers_to(template), "")


def test_the_same_example_twice() -> None:
    example = EXAMPLES["conv2d_add"]
    first, again = (example.model()(*example.inputs()) for _ in range(2))
    assert first.equal(again)
