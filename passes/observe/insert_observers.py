"""Put an observer on every annotated edge; sites of one sharing group share one observer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.passes.capture.inline_no_grad import SET_GRAD
from quantfx.passes.errors import PipelineError, SpecError
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site, all_graphs, constant, nested
from quantfx.passes.graph.scopes import module_scope
from quantfx.passes.graph.slots import read_slot, write_slot
from quantfx.passes.layers.scaled_layer import scaled_layer_of
from quantfx.passes.observers.branch import BranchObserver
from quantfx.passes.observers.derived import DerivedObserver
from quantfx.passes.observers.make_fake_quantize import make_fake_quantize
from quantfx.passes.observers.make_observer import make_observer
from quantfx.passes.observers.observer import Observer
from quantfx.passes.observers.trained import TrainedObserver, trained_qparams
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.annotation import annotated
from quantfx.passes.quant.spec import Concrete, QuantSpec, SharedSpec, Spec
from quantfx.patterns.errors import did_you_mean, unknown_name

FakeQuantizing = Literal["no", "follow", "learn"]
_CHOICES: tuple[FakeQuantizing, ...] = get_args(FakeQuantizing)


@dataclass(frozen=True)
class InsertObservers(Pass):
    """``conv(x, w) -> conv(observe(x), observe(w))``; a weight is observed here, once.

    Attributes:
        fake_quantize: Whether to insert modules that also round, for training: ``no``; ``follow``,
            whose scales follow the data; or ``learn``, whose scales are parameters.
    """

    fake_quantize: FakeQuantizing = "no"

    def __post_init__(self) -> None:
        if self.fake_quantize not in _CHOICES:
            raise unknown_name(PipelineError, "fake_quantize", self.fake_quantize, _CHOICES)

    name = "insert-observers"
    requires = frozenset({"shared"})
    provides = frozenset({"observed"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Insert observers after every tensor that an annotation quantizes."""
        graphs = dict(all_graphs(module))
        observers = _Observers(
            list(graphs.values()), self.fake_quantize, _regions(graphs), constant_groups(graphs)
        )
        inserted = 0
        groups: dict[Site, str] = {}
        for path, graph_module in all_graphs(module):
            groups |= _groups(path, graph_module)
            editor = Editor(graph_module, self.name)
            observers.enter(path)
            for producer, want in find_wanted(graph_module).items():
                _observe(editor, producer, want, observers)
            inserted += editor.edits
        observers.connect_derived(groups)
        return PassResult(stats={"inserted": inserted, "observers": len(observers.by_group)})


@dataclass
class Want:
    """The group that observes a producer's result, and the readers that want it quantized."""

    output: tuple[str, Concrete] | None = None
    readers: dict[str, list[tuple[Node, str, Concrete]]] = field(
        default_factory=dict[str, list[tuple[Node, str, Concrete]]]
    )


@dataclass
class _Observers:
    modules: list[GraphModule]
    fake_quantize: FakeQuantizing
    regions: frozenset[str]
    constant: frozenset[str]
    by_group: dict[str, tuple[str, nn.Module]] = field(
        default_factory=dict[str, tuple[str, nn.Module]]
    )
    branches: dict[tuple[str, str], BranchObserver] = field(
        default_factory=dict[tuple[str, str], BranchObserver]
    )
    in_branch: bool = False
    path: str = ""
    count: int = 0

    def enter(self, path: str) -> None:
        """Continue in the graph at ``path``."""
        self.in_branch = path not in self.regions
        self.path = path

    def get(self, group: str, spec: Concrete, label: str, producer: Node) -> tuple[str, nn.Module]:
        """Return name and module of the group's observer."""
        if group not in self.by_group:
            self.by_group[group] = (self._free_name(), self._make_module(spec, label, producer))
        return self.by_group[group]

    def _make_module(self, spec: Concrete, label: str, producer: Node) -> nn.Module:
        trained = trained_qparams(producer)
        if trained is not None and isinstance(spec, QuantSpec):
            return TrainedObserver(spec, label, trained)
        if self.fake_quantize == "no":
            return make_observer(spec, label)
        if self.in_branch:
            raise SpecError(
                f"{label} is in branch {self.path} of control flow, which cannot train quantized",
                rule="branch-training",
                site=label,
                fix="keep it float in the config",
            )
        learn = self.fake_quantize == "learn"
        return make_fake_quantize(
            spec, label, weight=_fake_weight(producer, spec), learn_scale=learn
        )

    def in_this_branch(self, group: str, observer: Observer) -> BranchObserver:
        """Return the group's observer for the current branch."""
        key = self.path, group
        if key not in self.branches:
            self.branches[key] = BranchObserver(observer)
        return self.branches[key]

    def connect_derived(self, groups: Mapping[Site, str]) -> None:
        """Tell each derived observer the observers of the sites it depends on."""
        for _, observer in self.by_group.values():
            if isinstance(observer, DerivedObserver):
                observer.sources = tuple(
                    self._source(observer, site, groups) for site in observer.derived.sources
                )
        for _, observer in self.by_group.values():
            _require_acyclic(observer, ())

    def _source(self, derived: Observer, site: Site, groups: Mapping[Site, str]) -> nn.Module:
        if site not in groups:
            nearest = did_you_mean(str(site), [str(known) for known in groups])
            raise SpecError(
                f"the qparams of {derived.label} derive from {site}, which nothing "
                f"quantizes{nearest}",
                rule="unknown-name",
                site=str(site),
                fix=f"annotate that site, or leave {derived.label} float",
            )
        return self.by_group[groups[site]][1]

    def _free_name(self) -> str:
        """Return a name that no graph of the model uses, e.g. for a user's module."""
        while True:
            name = f"activation_post_process_{self.count}"
            self.count += 1
            if not any(hasattr(module, name) for module in self.modules):
                return name


def _require_acyclic(observer: nn.Module, trail: tuple[DerivedObserver, ...]) -> None:
    """Refuse an observer whose qparams derive, through ``trail``, from themselves."""
    if not isinstance(observer, DerivedObserver):
        return
    if observer in trail:
        cycle = " <- ".join(each.label for each in (*trail[trail.index(observer) :], observer))
        message = f"qparams derive from themselves: {cycle}"
        fix = "give one of these sites a spec that observes, or leave it float"
        raise SpecError(message, rule="derived-circle", site=cycle, fix=fix)
    for source in observer.sources:
        _require_acyclic(source, (*trail, observer))


def find_wanted(module: GraphModule) -> dict[Node, Want]:
    """Return the tensors to observe, by producer in graph order."""
    wanted: dict[Node, Want] = {}
    for node, annotation in annotated(module.graph):
        groups = dict(annotation.groups)
        for slot, spec in annotation.inputs:
            want = wanted.setdefault(read_slot(node, slot), Want())
            want.readers.setdefault(groups[slot], []).append((node, slot, _require_resolved(spec)))
        if annotation.output is not None:
            wanted.setdefault(node, Want()).output = (
                groups[""],
                _require_resolved(annotation.output),
            )
    return wanted


def _groups(path: str, module: GraphModule) -> dict[Site, str]:
    return {
        Site(path, node.name, slot): group
        for node, annotation in annotated(module.graph)
        for slot, group in annotation.groups
    }


def _require_resolved(spec: Spec) -> Concrete:
    """Return ``spec``, which the required share pass has put in place of any reference."""
    if isinstance(spec, SharedSpec):
        fix = "run share before insert-observers"
        raise PipelineError(f"a site is still '{spec}'", rule="pass-order", site=str(spec), fix=fix)
    return spec


def _observe(editor: Editor, producer: Node, want: Want, observers: _Observers) -> None:
    source = producer
    if want.output is not None:
        group, spec = want.output
        source = _insert(editor, producer, producer, observers, (group, spec, label_of(producer)))
        producer.replace_all_uses_with(source, lambda user: user is not source)
    for group, readers in want.readers.items():
        if want.output is not None and group == want.output[0]:
            continue
        node, slot, spec = readers[0]
        label = f"{label_of(node)}.{slot}"
        observed = _insert(editor, producer, source, observers, (group, spec, label))
        for node, slot, _ in readers:
            write_slot(node, slot, observed)


def _insert(
    editor: Editor,
    producer: Node,
    source: Node,
    observers: _Observers,
    wanted: tuple[str, Concrete, str],
) -> Node:
    name, observer = observers.get(*wanted, producer)
    stored = observer
    value = editor.stored(producer)
    group = wanted[0]
    if value is not None and group in observers.constant:
        if isinstance(observer, Observer):  # foreign modules run on it in every call
            observer.see_constant(value)
    elif observers.in_branch and isinstance(observer, Observer):
        stored = observers.in_this_branch(group, observer)
    return editor.call_module(name, stored, source, after=source)


def constant_groups(graphs: Mapping[str, GraphModule]) -> frozenset[str]:
    """Return the groups that share qparams among stored tensors only.

    A stored tensor that shares with other tensors, as in ``cat([self.token, x])``, gives only a
    part of the range.
    """
    groups: set[str] = set()
    varying: set[str] = set()
    for module in graphs.values():
        for producer, want in find_wanted(module).items():
            groups |= want.readers.keys()
            if want.output is not None:
                varying.add(want.output[0])
            if constant(module, producer) is None:
                varying |= want.readers.keys()
    return frozenset(groups - varying)


def _fake_weight(producer: Node, spec: Concrete) -> Tensor | None:
    """Return the fake value of a weight that is stored, or computed from stored tensors.

    A computed tensor is a weight if its spec is per-channel, or if it is scaled as a batch norm
    will; any other, such as positions after their layer norm, is an activation.
    """
    notes = (scaled_layer_of(user) for user in producer.users)
    is_scaled = any(note is not None and note.weight == producer.name for note in notes)
    per_channel = isinstance(spec, QuantSpec) and spec.axis is not None
    pending = [producer]
    while pending:
        node = pending.pop()
        if node.op == "get_attr":
            continue
        if not node.all_input_nodes or not (per_channel or is_scaled):
            return None
        pending += node.all_input_nodes
    value = producer.meta.get("val")
    return value if isinstance(value, Tensor) else None


def _regions(graphs: Mapping[str, GraphModule]) -> frozenset[str]:
    """Return the paths of nested graphs that run whenever the model runs: not inside a branch."""
    found = {""}
    for path, module in graphs.items():
        for node, _ in nested(module):
            if path in found and all(user.target is SET_GRAD for user in node.users):
                found.add(f"{path}.{node.target}" if path else str(node.target))
    return frozenset(found)


def label_of(node: Node) -> str:
    """Return the label of the tensor that ``node`` computes: its module and its name."""
    path = module_scope(node)
    return f"{path} ({node.name})" if path else node.name
