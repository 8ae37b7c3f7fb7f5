"""Compare a q/dq graph with its float graph over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.passes.graph.state import preserved_state
from quantfx.passes.inputs.leaves import Inputs, leaves_in
from quantfx.passes.model.input_copies import copy_inputs
from quantfx.passes.model.state import restored
from quantfx.passes.report.compare.calls import calls_of
from quantfx.passes.report.compare.comparison import Comparison
from quantfx.passes.report.compare.lockstep import Lockstep
from quantfx.passes.report.compare.parts import left_out_sites
from quantfx.passes.report.compare.site_record import SiteRecord
from quantfx.passes.report.compare.tally import ErrorTally


def compare_graphs(
    reference: GraphModule,
    quantized: GraphModule,
    batches: Iterable[Any],
    *,
    input_fn: Callable[[Any], Any] | None = None,
    progress: bool = True,
    model: nn.Module | None = None,
) -> Comparison:
    """Return numbers for every site of ``quantized``.

    Each batch runs once through both graphs, operator by operator; only sums are kept.

    Args:
        reference: The float graph, as prepared; its observers record nothing here.
        quantized: The q/dq graph made from it.
        batches: In the forms that ``calibrate`` takes.
        input_fn: Turns an element of ``batches`` into such a batch.
        progress: Show a progress bar where the terminal allows it.
        model: The model itself, to check that the float graph computes the same.

    Raises:
        CalibrationError: there is no batch, or one does not fit the model.
    """
    lockstep = Lockstep(reference, quantized)
    records = {part.anchor: SiteRecord(part) for part in lockstep.parts}
    whole, origin = ErrorTally(), ErrorTally()
    count = 0
    with preserved_state(reference), preserved_state(quantized), _restored(model):
        for inputs in calls_of(quantized, batches, "compare", input_fn=input_fn, progress=progress):
            exact, found = lockstep.run(
                inputs, lambda part, values: records[part.anchor].add(values)
            )
            whole.add(exact, found)
            if model is not None:
                origin.add(_call(model, copy_inputs(*inputs)), _floats(exact))
            count += 1
    sites = {
        anchor: record.numbers(reference, quantized, lockstep.common)
        for anchor, record in records.items()
    }
    return Comparison(
        tuple(sites[anchor] for anchor in sorted(sites)),
        whole.fidelity(),
        origin.fidelity(),
        count,
        tuple(left_out_sites(quantized, {each.site for each in sites.values()})),
    )


def _restored(model: nn.Module | None) -> AbstractContextManager[object]:
    return nullcontext() if model is None else restored(model)


def _call(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    with torch.no_grad():
        return _floats(model(*inputs[0], **inputs[1]))


def _floats(results: Any) -> list[Tensor]:
    leaves = leaves_in(results)
    return [each for each in leaves if isinstance(each, Tensor) and each.is_floating_point()]
