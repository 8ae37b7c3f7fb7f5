"""The kernel family ``direct``: int8 operators as steps of prepared plans.

``form-regions`` takes its sites, many at a time, before templates are matched. If the family is
required, each remaining site becomes a region by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import Node

from quantfx.backends.direct.form_regions import Formed, call_region, form
from quantfx.backends.direct.partition import unvarying
from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.runtime.library import runtime
from quantfx.backends.direct.taken import refusal
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import Candidate, Emission, KernelFamily, Saturation


@dataclass(frozen=True)
class Direct(KernelFamily):
    """oneDNN's primitives, prepared beforehand and called without one torch operator each.

    Attributes:
        required: Whether it must take every site; else it leaves sites that it cannot take, or that
            do not pay, to the next family.
    """

    required: bool = False

    needs_process = True
    name = "direct"

    @property
    def saturates(self) -> Saturation:
        """Sums of neighbours: without VNNI oneDNN adds them in 16 bits."""
        return "neighbours"

    @property
    def alone(self) -> bool:
        """True if required: whoever asks for plans does not want torch's operators instead."""
        return self.required

    def takes(self, candidate: Candidate) -> bool:
        """Whether it may take the match: if required, for static modes, in float32.

        Otherwise a call for one site alone costs more than torch's operator.
        """
        exact = candidate.match.template.mode == "static" and candidate.float_dtype is None
        return exact and self.required

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        """Return the operator that no step computes, or why the runtime is missing."""
        formed = _form(candidate)
        return formed if isinstance(formed, str) else None

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Call a region of this one site."""
        formed = _form(candidate)
        assert isinstance(formed, Formed), "refuses admitted the match"
        _, (result,) = call_region(editor, formed, before=candidate.match.output)
        kernel = next(each.kernel for each in formed.sites if each.site == candidate.site)
        return Emission(result, candidate.match.output, kernel)


def _form(candidate: Candidate) -> Formed | str:
    """Return the region of a match, or why there is none."""
    if reason := runtime().reason:
        return f"the direct runtime is not available: {reason}"
    graph = candidate.anchor.graph
    if candidate.anchor in unvarying(graph):
        return "it depends on no input"
    members = _members(candidate)
    for node in members:
        if reason := refusal(node):
            return f"{node.name}: {reason}"
    inside = (node for node in members if node is not candidate.match.output)
    if any(user not in members for node in inside for user in node.users):
        return "another operator reads a value inside of it"
    module = graph.owning_module
    assert module is not None, "a matched graph is a module's"
    try:
        formed = form(module, members, candidate.site.graph)
    except Untranslatable as error:
        return str(error)
    named = any(each.site == candidate.site for each in formed.sites)
    return formed if named else f"no step computes {candidate.anchor.name}"


def _members(candidate: Candidate) -> list[Node]:
    """Return the nodes of a match, including those of list roles, in graph order."""
    match = candidate.match
    many = (bound for bound in match.roles.values() if isinstance(bound, tuple))
    nodes = {*match.nodes.values(), *(node for bound in many for node in bound)}
    return sorted(node for node in nodes if node.op == "call_function")
