"""Estimate how rounding at every site affects the outputs, with one backward pass per call.

Site ``i`` has an own error ``e_i``: the error that its rounded weights and inputs add to its result
when its inputs are exact. To first order the outputs err by ``sum_i J_i e_i``, where ``J_i`` is the
Jacobian of the outputs by the result of site ``i``. With ``v`` of random signs,
``d_i = <v, J_i e_i>``, and its mean square over ``v`` is ``|J_i e_i|^2``: the estimator of a trace
by M. F. Hutchinson (Communications in Statistics 18, 1989). One backward pass of the float graph
gives ``J_i^T v`` for all sites at once, and thus a column of ``d_i`` for each site. Products of
columns estimate ``<J_i e_i, J_j e_j>`` in the same way, which shows where errors cancel or add up.

Random signs make the win of leaving one site float, ``|E|^2 - |E - J_i e_i|^2`` with the total
error ``E``, a noisy estimate, because ``<E, J_i e_i>`` is a sum over all sites. With ``whole=True``
the q/dq graph runs as well, and ``E`` itself replaces ``v``, so chance plays no part. The Jacobian
is then the mean of the Jacobians at the values of the float graph and of the q/dq graph.

``J^T J`` is the Gauss-Newton matrix of a squared error of the outputs. HAWQ (Dong et al.,
arXiv 1905.03696) weights rounding by the largest eigenvalue of a layer's Hessian, HAWQ-V2 (arXiv
1911.03852) by its trace, both times the size of the weights' error. Here the matrix is applied to
the errors themselves, including errors of activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from quantfx.passes.errors import CalibrationError
from quantfx.passes.graph.graphs import Site
from quantfx.passes.graph.scopes import module_scope
from quantfx.passes.graph.state import preserved_state
from quantfx.passes.inputs.leaves import Inputs
from quantfx.passes.report.compare.calls import calls_of
from quantfx.passes.report.compare.parts import left_out_sites
from quantfx.passes.report.sensitivity.gradient_run import Call, run_with_errors
from quantfx.passes.report.sensitivity.outputs import (
    Signs,
    errors_of,
    finite,
    float_places,
    powers,
    rows_of,
)
from quantfx.passes.report.sensitivity.paired_graphs import PairedGraphs
from quantfx.passes.report.sensitivity.ranking import Whole
from quantfx.passes.report.sensitivity.sensitivity import SensitiveSite, Sensitivity
from quantfx.passes.report.work import OperatorWork
from quantfx.patterns.errors import QuantfxError


def estimate_sensitivity(
    paired: PairedGraphs,
    batches: Iterable[Any],
    *,
    work: Iterable[OperatorWork] = (),
    draws: int = 1,
    seed: int = 0,
    whole: bool = False,
    input_fn: Callable[[Any], Any] | None = None,
    progress: bool = True,
) -> Sensitivity:
    """Return how rounding at every site of the q/dq graph affects the outputs.

    Args:
        paired: The float graph and the q/dq graph.
        batches: In the forms that ``calibrate`` takes.
        work: Work of the q/dq graph's operators.
        draws: Random vectors for each row; each takes another backward pass.
        seed: Seed of the signs.
        whole: Whether to measure the total error as well, and attribute it to sites.
        input_fn: Turns what ``batches`` yields into such a batch.
        progress: Show a progress bar where the terminal allows it.

    Raises:
        CalibrationError: there is no batch, or a batch does not fit the model, is empty, or makes
            it return NaN.
        QuantfxError: no gradient leads from an output to a site.
    """
    if not paired.parts:
        message = "no site of the q/dq graph rounds a value that the float graph computes as well"
        fix = "give the model that was quantized, and a result with quantized sites"
        raise QuantfxError(message, rule="no-gradients", fix=fix)
    rows = _Rows(paired, Signs(seed), draws)
    with preserved_state(paired.reference), preserved_state(paired.quantized):
        for inputs in calls_of(
            paired.quantized, batches, "sensitivity", input_fn=input_fn, progress=progress
        ):
            _add(rows, paired, inputs, whole=whole)
    return rows.sensitivity(tuple(work))


def _add(rows: _Rows, paired: PairedGraphs, inputs: Inputs, *, whole: bool) -> None:
    """Add a call; its memory is freed on return."""
    call = run_with_errors(paired, inputs)
    rows.add(call)
    if whole:
        rows.share_out(call, run_with_errors(paired, inputs, accumulated=True))


class _Rows:
    """Collects ``d_i`` of all sites, by row, or by call if rows cannot be told apart.

    Args:
        paired: Both graphs.
        signs: Signs for the outputs.
        draws: Random vectors for each row.
    """

    def __init__(self, paired: PairedGraphs, signs: Signs, draws: int) -> None:
        self._paired, self._signs, self._draws = paired, signs, draws
        self._by_row: bool | None = None  # not known before a call of several rows
        self._shares: Tensor | None = None  # per output, one over the power of a row
        self._found: list[Tensor] = []
        self._power: list[Tensor] = []
        self._joint: list[Tensor] = []
        self._noise: list[Tensor] = []
        self._reached = [False] * len(paired.parts)
        self._silent: dict[str, str] = {}
        self._calls = 0

    def add(self, call: Call) -> None:
        """Add one call."""
        places = self._places(call)
        outputs: list[Tensor] = [call.outputs[place] for place in places]
        rows = rows_of(outputs)
        power = powers(finite(outputs), rows)
        if self._shares is None:
            mean = power.mean(1)
            self._shares = torch.where(mean > 0, 1 / mean, 1.0)
        roots = self._shares.sqrt().tolist()
        drawn = [
            [
                (sign * root).where(y.isfinite(), 0)
                for sign, root, y in zip(each, roots, outputs, strict=True)
            ]
            for each in self._signs.draw(outputs, rows, self._draws)
        ]
        if rows > 1 and self._by_row is None:
            last = [torch.zeros_like(each) for each in drawn[0]]
            for mask, each in zip(last, drawn[0], strict=True):
                mask[-1] = each[-1]
            self._by_row = _only_last_rows(call.gradients(places, last, keep=True), rows)
        for weights in drawn:
            # Kept for later steps; the memory is freed with the call.
            gradients = call.gradients(places, weights, keep=True)
            self._found.append(self._columns(call, gradients, self._units(outputs)))
        weighted = power.T @ self._shares
        self._power.append(weighted if self._by_row else weighted.sum(0, keepdim=True))
        self._calls += 1

    def share_out(self, exact: Call, rounded: Call) -> None:
        """Add the error of the outputs of a call, and each site's part of it.

        Args:
            exact: A call that was added.
            rounded: The same call with accumulated errors.
        """
        assert self._shares is not None  # set by the first call
        places = self._places(exact)
        outputs: list[Tensor] = [exact.outputs[place] for place in places]
        given = [rounded.outputs[place] for place in places]
        off = [each.detach() for each in errors_of(outputs, given)]
        power = powers(off, rows_of(outputs)).T @ self._shares
        units = self._units(outputs)
        self._noise.append(power if units > 1 else power.sum(0, keepdim=True))
        weights = [each * share for each, share in zip(off, self._shares.tolist(), strict=True)]
        found = [
            self._columns(call, call.gradients(places, weights, keep=False), units)
            for call in (exact, rounded)
        ]
        self._joint.append(torch.stack(found).mean(0))

    def _units(self, outputs: Sequence[Tensor]) -> int:
        return rows_of(outputs) if self._by_row else 1

    def sensitivity(self, work: Sequence[OperatorWork]) -> Sensitivity:
        """Return the sensitivity from the collected rows."""
        signal = math.sqrt(float(torch.cat(self._power).mean()))
        found = torch.cat(self._found) / (signal or 1.0)
        parts = [
            part for part, is_on in zip(self._paired.parts, self._reached, strict=True) if is_on
        ]
        done = {each.site: each for each in work}
        sites = [Site("", part.anchor.name) for part in parts]
        rows = tuple(
            SensitiveSite(
                site,
                part.annotation.kind,
                module_scope(part.anchor),
                part.annotation.mode,
                macs=done[site].macs if site in done else 0,
                weight_bytes=done[site].weight_bytes if site in done else 0,
            )
            for site, part in zip(sites, parts, strict=True)
        )
        known = {Site("", part.anchor.name) for part in self._paired.parts}
        unreached = sorted(known - set(sites))
        told = [(str(site), "no gradient leads from it to an output") for site in unreached]
        return Sensitivity(
            rows,
            found[:, torch.tensor(self._reached)],
            calls=self._calls,
            draws=self._draws,
            unit="row" if self._by_row else "call",
            whole=self._whole(signal or 1.0),
            left_out=(
                *left_out_sites(self._paired.quantized, known),
                *told,
                *self._silent.items(),
            ),
        )

    def _whole(self, signal: float) -> Whole | None:
        if not self._noise:
            return None
        shares = torch.cat(self._joint).mean(0) / signal**2
        noise = float(torch.cat(self._noise).mean()) / signal**2
        return Whole(noise, tuple(shares[torch.tensor(self._reached)].tolist()))

    def _places(self, call: Call) -> list[int]:
        """Return the outputs that gradients start from."""
        floats = float_places(call.outputs)
        tensors = [leaf for leaf in call.outputs if isinstance(leaf, Tensor)]
        told = "has no rows" if tensors and not any(each.numel() for each in tensors) else ""
        if any(bool(call.outputs[place].isnan().any()) for place in floats):
            told = "makes the float model return NaN"
        if told:
            message = f"call {self._calls} {told}"
            raise CalibrationError(message, rule="not-finite", site="batches", fix="leave it out")
        found = [place for place in floats if call.outputs[place].requires_grad]
        for place, leaf in enumerate(call.outputs):
            if isinstance(leaf, Tensor) and place not in found:
                kind = "no gradient leads to it" if place in floats else f"it is {leaf.dtype}"
                self._silent[f"output {place}"] = kind
        if not found:
            raise QuantfxError(
                "no gradient leads from an output to a quantized site",
                rule="no-gradients",
                fix="return float results, such as scores in front of an argmax",
            )
        return found

    def _columns(
        self, call: Call, gradients: Sequence[Sequence[Tensor | None]], units: int
    ) -> Tensor:
        """Return ``<gradient, own error>`` of each unit and part."""
        found = torch.zeros(units, len(call.errors), dtype=torch.float64)
        for index, (site, slopes) in enumerate(zip(call.errors, gradients, strict=True)):
            for error, slope in zip(site.errors, slopes, strict=True):
                if slope is not None:
                    self._reached[index] = True
                    found[:, index] += _products(slope, error, units)
        return found


def _products(slope: Tensor, error: Tensor, units: int) -> Tensor:
    """Return ``<slope, error>`` of each unit."""
    found: Tensor = torch.linalg.vecdot(slope.reshape(units, -1), error.reshape(units, -1))
    if not torch.isfinite(found).all():  # a gradient may be infinite where nothing is rounded
        found = (slope * error).masked_fill_(error == 0, 0).reshape(units, -1).sum(1)
    return found.double()


def _only_last_rows(gradients: Sequence[Sequence[Tensor | None]], rows: int) -> bool:
    """Whether gradients of the outputs' last row are in the last part of each first dimension.

    Then the first dimension is rows, or rows times another dimension. Otherwise it may be time, or
    a result may be shared by all rows.
    """
    return all(
        slope.dim() > 0
        and slope.shape[0] % rows == 0
        and not bool(slope.reshape(rows, -1)[:-1].any())
        for slopes in gradients
        for slope in slopes
        if slope is not None
    )
