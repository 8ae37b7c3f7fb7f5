"""Backend options that affect accuracy, applied to an existing backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.passes.convert.repair.by_all_data import by_all_data
from quantfx.passes.convert.repair.round_weights import RoundWeights
from quantfx.passes.observe.insert_observers import InsertObservers
from quantfx.passes.observe.observe_channels import ObserveChannels
from quantfx.passes.observe.smooth_activations import SmoothActivations
from quantfx.passes.pipeline.pipeline import Pipeline

SMOOTH = ("smooth", 0.7)  # what the README recommends, as measured on a transformer
REPAIR = ("repair", True)


def offered(backend: Backend, *, linears: bool) -> tuple[tuple[tuple[str, float | bool], ...], ...]:
    """Return the options that are worth trying, the least invasive first.

    Args:
        backend: Options that it already has are not offered.
        linears: Whether the model has linears; smoothing applies only to these.
    """
    known = backends.options_of(backend.name) if backend.name in backends.NAMES else ()
    names = [*backend.prepare_pipeline.names, *backend.convert_pipeline.names]
    smooths = linears and "smooth" in known and ObserveChannels.name not in names
    repairs = "repair" in known and RoundWeights() not in backend.convert_pipeline.passes
    return (
        (),
        *([(REPAIR,)] if repairs else []),
        *([(SMOOTH,)] if smooths else []),
        *([(REPAIR, SMOOTH)] if smooths and repairs else []),
    )


def with_options(backend: Backend, options: Mapping[str, Any]) -> Backend:
    """Return the backend that ``backends.get`` makes with these options added.

    Args:
        backend: A backend without these options.
        options: Some of those that ``offered`` returns.
    """
    prepare, convert = backend.prepare_pipeline, backend.convert_pipeline
    if "smooth" in options:
        prepare = prepare.before(InsertObservers.name, ObserveChannels())
        convert = Pipeline((SmoothActivations(options["smooth"]),), convert.name) + convert
    if "repair" in options:
        convert = by_all_data(convert)
    return replace(backend, prepare_pipeline=prepare, convert_pipeline=convert)
