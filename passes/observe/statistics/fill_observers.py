"""Fill the observers of a prepared graph from statistics, in place of calibration."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace

import torch
from torch import nn
from torch.fx import GraphModule, Node

from quantfx.passes.errors import CalibrationError
from quantfx.passes.graph.facts import facts_of
from quantfx.passes.graph.graphs import Site, all_graphs, module_calls
from quantfx.passes.graph.remark import Remark
from quantfx.passes.observers.branch import BranchObserver
from quantfx.passes.observers.channel import ChannelObserver
from quantfx.passes.observers.derived import DerivedObserver
from quantfx.passes.observers.fixed import FixedObserver
from quantfx.passes.observers.histogram_record import HistogramRecord
from quantfx.passes.observers.including import IncludingObserver
from quantfx.passes.observers.min_max import MinMaxObserver, RangeRecord
from quantfx.passes.observers.moving_average import MovingAverageObserver
from quantfx.passes.observers.observer import Observer
from quantfx.passes.observers.statistics.statistics import Statistics
from quantfx.passes.observers.statistics.tensor_record import TensorRecord
from quantfx.passes.pipeline.record import PassRecord, records_of, set_records

# Observers without a record: their qparams are known, or follow from other observers.
_WITHOUT_DATA = (FixedObserver, DerivedObserver)
# Observers that need only the extremes of all calls.
_OF_EXTREMES = (MinMaxObserver.observe, IncludingObserver.observe)


@dataclass
class _Filled:
    """An observer, and the producers of the tensors that it is to be filled from."""

    observer: Observer
    at: tuple[str, Node]
    sites: list[Site] = field(default_factory=list[Site])
    branches: list[tuple[BranchObserver, Site]] = field(
        default_factory=list[tuple[BranchObserver, Site]]
    )


def fill_observers(prepared: GraphModule, statistics: Statistics) -> int:
    """Fill every observer of ``prepared`` as calibration with the same data would have.

    Observers ``histogram``, ``mse``, ``min_max`` and ``moving_average`` get a bit-identical state,
    and so do observers by channel. If a sharing group differs from the group at collection, its
    members' histograms are merged, with a remark.

    Args:
        prepared: A module with observers, from a backend's ``prepare``; their records are replaced.
        statistics: From ``quantfx.collect``, of the same model.

    Returns:
        The number of observers filled.

    Raises:
        CalibrationError: a tensor was not recorded, or an observer is of an unknown kind; names it.
    """
    if "observed" not in facts_of(prepared):
        fix = "call prepare first"
        raise CalibrationError("the module has no observers", rule="not-prepared", fix=fix)
    found = _find(prepared)
    remarks: list[Remark] = []
    for each in found:
        record = _record_of(each, statistics)
        if record is None:
            record = _merged(each, statistics)
            told = f"merged from {len(each.sites)} tensors, to the width of a bin"
            remarks.append(Remark("applied", each.at[0], each.at[1].name, told))
        if record.seen:
            _fill(each.observer, record)
        for branch, site in each.branches:
            branch.ran = branch.ran or statistics.tensors[site].seen
    done = PassRecord("fill-observers", 0.0, False, tuple(remarks), {"filled": len(found)})
    set_records(prepared, (*records_of(prepared), done))
    return len(found)


def _find(prepared: GraphModule) -> list[_Filled]:
    found: dict[int, _Filled] = {}
    for path, graph in all_graphs(prepared):
        for node, called in module_calls(graph, nn.Module):
            if not isinstance(called, Observer):
                continue
            observer = called.shared if isinstance(called, BranchObserver) else called
            if observer.frozen or isinstance(observer, _WITHOUT_DATA):
                continue
            filled = found.setdefault(id(observer), _Filled(observer, (path, node)))
            site = Site(path, _producer(node).name)
            filled.sites.append(site)
            if isinstance(called, BranchObserver):
                filled.branches.append((called, site))
    return list(found.values())


def _producer(node: Node) -> Node:
    """Return the node whose result the observer ``node`` sees, skipping other observers."""
    while node.op == "call_module":
        node = node.all_input_nodes[0]
    return node


def _record_of(each: _Filled, statistics: Statistics) -> TensorRecord | None:
    """Return the joint record of exactly these tensors; None if only single records exist."""
    missing = [site for site in each.sites if site not in statistics.tensors]
    if missing:
        message = f"{each.observer.label or missing[0]}: the statistics do not hold the tensor "
        fix = "quantize with calibration=, or collect with this backend, its config included"
        raise CalibrationError(
            f"{message}{missing[0]}", rule="not-recorded", site=str(missing[0]), fix=fix
        )
    sites = tuple(sorted(set(each.sites)))
    return statistics.tensors[sites[0]] if len(sites) == 1 else statistics.groups.get(sites)


def _merged(each: _Filled, statistics: Statistics) -> TensorRecord:
    parts = [statistics.tensors[site] for site in dict.fromkeys(each.sites)]
    merged = TensorRecord.merge(parts)
    if len({len(part.extremes) for part in parts}) > 1:
        return merged
    # In the order in which the observer sees them: each call's tensors in turn.
    extremes = torch.stack([part.extremes for part in parts], 1).reshape(-1, 2)
    return replace(merged, extremes=extremes)


def _fill(observer: Observer, record: TensorRecord) -> None:
    # Decided by how it observes: a user's subclass may record something else.
    observes = type(observer).observe
    if isinstance(observer, ChannelObserver) and record.channels is not None:
        _copy(observer.whole, record)
        observer.channels = deepcopy(record.channels)
    elif isinstance(observer, HistogramRecord) and observes is HistogramRecord.observe:
        _copy(observer, record)
    elif isinstance(observer, MovingAverageObserver) and observes is MovingAverageObserver.observe:
        _clear(observer)
        for low, high in record.extremes:
            observer.follow(low, high)
    elif (
        isinstance(observer, MinMaxObserver)
        and observer.spec.axis is None
        and observes in _OF_EXTREMES
    ):
        _clear(observer)
        observer.observe(record.extremes)
    else:
        _refuse(observer)


def _clear(observer: RangeRecord) -> None:
    observer.min_val.fill_(torch.inf)
    observer.max_val.fill_(-torch.inf)


def _copy(observer: HistogramRecord, record: TensorRecord) -> None:
    if observer.histogram.shape != record.histogram.shape:
        _refuse(observer)
    observer.histogram.copy_(record.histogram)
    observer.min_val.copy_(record.min_val)
    observer.max_val.copy_(record.max_val)


def _refuse(observer: Observer) -> None:
    kind = f"{type(observer).__module__}.{type(observer).__qualname__}"
    message = f"{observer.label}: statistics do not hold what a {kind} records"
    fix = "quantize with calibration=, or use one of quantfx's observers, per tensor"
    raise CalibrationError(message, rule="not-recorded", site=observer.label, fix=fix)
