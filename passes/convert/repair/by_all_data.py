"""Put repairs that use statistics of all data into a pipeline."""

from __future__ import annotations

from quantfx.passes.convert.repair.correct_bias import CorrectBias
from quantfx.passes.convert.repair.round_weights import RoundWeights
from quantfx.passes.pipeline.pipeline import Pipeline

_ROUNDS = "insert-qdq"


def by_all_data(convert: Pipeline) -> Pipeline:
    """Return ``convert`` with both repairs before ``insert-qdq``, in place of its own repairs."""
    own = [name for name in (RoundWeights.name, CorrectBias.name) if name in convert.names]
    rest = convert.without(*own)
    return rest.before(_ROUNDS, RoundWeights()).before(_ROUNDS, CorrectBias())
