"""The explanation of one name of a model: plain values, in the order in which things happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, overload

from rich.console import Group
from rich.tree import Tree

from quantfx.passes.graph.source_line import SourceLine
from quantfx.passes.report.explain.tree import text_of, tree_of, trees_of

VERSION = 1  # format of as_dict

Kind: TypeAlias = Literal["operator", "made", "input", "constant", "output", "vanished", "silent"]
Standing: TypeAlias = Literal["quantized", "float", "gone", "other"]


@dataclass(frozen=True, kw_only=True)
class HistoryStep:
    """One pass's effect on the name.

    Attributes:
        by: Name of the pass.
        what: ``became`` another name, was ``removed`` without replacement, ``absorbed`` another
            name, was ``made`` by the pass, or only got a remark (``said``).
        other: The name that it became or absorbed; empty if there is none.
        text: The step as a sentence without a full stop.
    """

    by: str
    what: Literal["became", "removed", "absorbed", "made", "said"]
    other: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ModeDecision:
    """The config's decision for the operator.

    Attributes:
        mode: The mode; ``float`` for not at all.
        rule: The rule that decided; empty for the config's default.
    """

    mode: str
    rule: str


@dataclass(frozen=True, kw_only=True)
class TemplateTry:
    """One template that was tried at the operator.

    Attributes:
        by: Name of the annotate pass.
        template: Label of the variant, e.g. ``conv2d_add_relu``.
        matched: Whether it matched.
        reason: The first rule that failed; empty if it matched.
    """

    by: str
    template: str
    matched: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class MatchPart:
    """The match that holds the operator.

    Attributes:
        template: Label of the matched variant.
        mode: Mode of the template.
        anchor: Site of the operator that the match is about.
        members: Sites of all operators of the match, in graph order.
        kernel: Kernel that the template names; empty if it names none.
        reach: The reach of the template.
    """

    template: str
    mode: str
    anchor: str
    members: tuple[str, ...]
    kernel: str
    reach: str


@dataclass(frozen=True, kw_only=True)
class TensorQuantization:
    """The scale and zero point of one tensor.

    Attributes:
        dtype: E.g. ``uint8``; ``float16`` for a cast, which has no scale.
        scheme: E.g. ``per-tensor affine``, ``per-channel(0) symmetric``, ``cast``.
        quant_min: Smallest integer; None for a cast.
        quant_max: Largest integer; None for a cast.
        channels: Number of scales.
        scale: The scale; the median scale if per-channel. None if found in each call.
        scale_min: The smallest scale.
        scale_max: The largest scale.
        zero_point: The zero point; of the first channel if per-channel. None if found in each call.
        low: Smallest representable value in any channel.
        high: Largest representable value in any channel.
    """

    dtype: str
    scheme: str
    quant_min: int | None = None
    quant_max: int | None = None
    channels: int = 1
    scale: float | None = None
    scale_min: float | None = None
    scale_max: float | None = None
    zero_point: int | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class TensorPart:
    """One quantized tensor of the operator: an argument, its result, or a weight in its kernel.

    Attributes:
        site: E.g. ``conv2d.input``; the site of the operator itself for its result.
        slot: Name of the argument, "" for the result.
        reads: Site of the node that computes or stores the tensor.
        spec: The spec as text.
        spec_name: The template's name for the spec; empty if not recorded.
        asked_by: Rules of the config that changed the spec; empty for the backend's default.
        observer: The observer that found the range; empty if there is none.
        group: Name of the sharing group, the site of its first member; empty without a group.
        qparams: Scale, zero point and range; None if the tensor is not quantized in the graph.
        reason: Why it is not quantized, or why its scale does not fit.
    """

    site: str
    slot: str
    reads: str
    spec: str
    spec_name: str = ""
    asked_by: str = ""
    observer: str = ""
    group: str = ""
    qparams: TensorQuantization | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class SharingLink:
    """Two sites that share qparams, with the reason."""

    a: str
    b: str
    why: str


@dataclass(frozen=True, kw_only=True)
class SharingPart:
    """A sharing group with a tensor of the operator and at least one other member.

    Attributes:
        name: The site of the first member.
        slot: The operator's slot in the group.
        members: All members, in the order of the model.
        chain: How the slot is tied to the first member; empty for the first member itself.
        links: All links between the members, one fewer than members.
    """

    name: str
    slot: str
    members: tuple[str, ...]
    chain: tuple[SharingLink, ...]
    links: tuple[SharingLink, ...]


@dataclass(frozen=True, kw_only=True)
class KernelPart:
    """What computes the operator.

    Attributes:
        site: The planned site that the kernel belongs to; the operator itself if it is in no match.
        status: ``planned``, ``kernel``, ``merged``, ``float`` or ``missed``, as in the report.
        eager: What computes it in ``result.module``; None without kernels.
        compiled: What computes it in the compiled module; None before ``compile``.
        region: The region call that contains it in ``result.module``; empty if none does.
        with_others: Other operators that the same kernel call computes.
        reason: Why it missed its kernel, or is in no prepared plan.
    """

    site: str
    status: str
    eager: str | None
    compiled: str | None
    region: str = ""
    with_others: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What became of one name of the model.

    Attributes:
        site: The name: a node, after the path of a nested graph (``true_graph_0/conv2d``); the path
            of a module that left no operator.
        graph: Path of the graph, "" for the top one.
        node: Name of the node; empty for a module that left no operator.
        kind: ``operator`` of the model; ``made`` by a pass (q, dq); ``input``, ``constant`` or
            ``output`` of the graph; ``vanished``, a node that a pass removed; ``silent``, a module
            for which the exporter wrote no operator.
        op: Operator, e.g. ``aten.conv2d.default``.
        module: Path of the user's module.
        module_class: Class of that module.
        code: Line of the user's code, if known.
        standing: ``quantized``; ``float``; ``gone``; ``other`` for inputs, constants and q/dq.
        verdict: The answer in one sentence.
        history: What passes did to it, in order.
        decision: The config's decision; None if the config was not asked.
        tries: Templates tried at it, in order.
        match: The match that holds it; None if there is none.
        tensors: Its quantized tensors: arguments, result, weights that its kernel packs.
        sharing: Sharing groups of these tensors that have other members.
        kernel: What computes it; None if it computes nothing.
        reason: Why it stays float, or is gone.
        remedies: What would make it int8.
        idle: Whether it stays float because there is nothing to quantize: it only moves values,
            reads no tensor, or computes no floats.
    """

    site: str
    graph: str
    node: str
    kind: Kind
    op: str
    module: str
    module_class: str
    code: SourceLine | None
    standing: Standing
    verdict: str
    history: tuple[HistoryStep, ...] = ()
    decision: ModeDecision | None = None
    tries: tuple[TemplateTry, ...] = ()
    match: MatchPart | None = None
    tensors: tuple[TensorPart, ...] = ()
    sharing: tuple[SharingPart, ...] = ()
    kernel: KernelPart | None = None
    reason: str = ""
    remedies: tuple[str, ...] = ()
    idle: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data that JSON can hold."""
        return {"version": VERSION, **_plain(asdict(self))}

    def __rich__(self) -> Tree:
        """Return it as a tree."""
        return tree_of(self)

    def __str__(self) -> str:
        return text_of([tree_of(self)])


@dataclass(frozen=True)
class Explanations(Sequence[Explanation]):
    """The answers to one question, in graph order.

    Attributes:
        asked: The name that was asked for.
        sites: One answer for each site that the name stands for.
    """

    asked: str
    sites: tuple[Explanation, ...]

    def __len__(self) -> int:
        return len(self.sites)

    @overload
    def __getitem__(self, index: int) -> Explanation: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Explanation, ...]: ...

    def __getitem__(self, index: int | slice) -> Explanation | tuple[Explanation, ...]:
        return self.sites[index]

    def as_dict(self) -> dict[str, Any]:
        """Return all answers as plain data that JSON can hold."""
        sites = [each.as_dict() for each in self.sites]
        return {"version": VERSION, "asked": self.asked, "sites": sites}

    def __rich__(self) -> Group:
        """Return all of them as trees."""
        return Group(*trees_of(self.sites))

    def __str__(self) -> str:
        return text_of(trees_of(self.sites))


def _plain(value: Any) -> Any:
    """Return ``value`` with lists in place of tuples, as after a round trip through JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
