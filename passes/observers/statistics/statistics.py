"""Statistics: what one pass over the data tells of a model, for every recipe that asks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch.fx import GraphModule

from quantfx.passes.errors import ArgumentError, CalibrationError, FileError
from quantfx.passes.graph.graphs import Site
from quantfx.passes.observers.statistics import plain_file
from quantfx.passes.observers.statistics.as_plain import (
    decode,
    decode_sample,
    encode,
    encode_sample,
)
from quantfx.passes.observers.statistics.digests import ModelDigest, joined
from quantfx.passes.observers.statistics.layer_inputs import LayerInputs
from quantfx.passes.observers.statistics.sample import Leaves, Sample
from quantfx.passes.observers.statistics.tensor_record import TensorRecord
from quantfx.patterns.errors import QuantfxWarning

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

Group = tuple[Site, ...]
"""The producers of the tensors of a sharing group, sorted."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """What ``quantfx.collect`` saw; ``quantize(statistics=...)`` takes it in the place of data.

    A tensor is known by its producer in the prepared graph, ``Site(path of the graph, node)``.
    Weights are not recorded.

    Attributes:
        tensors: Of each tensor that some config of the backend may quantize.
        groups: Of tensors that share qparams by default, together, by their producers.
        layers: Of each convolution and linear with a stored weight, by that call. Transposed
            convolutions have none.
        model: The model.
        calls: A digest of the inputs of each call that was recorded, in order.
        batches: How many there were.
        rows: First dimension of the first input, summed over all calls.
        sample: The inputs of the calls with the smallest digests themselves, one for each
            placeholder of the graph: as many as ``MOST_SAMPLED`` bytes hold, and none if no layers
            were recorded.
    """

    tensors: Mapping[Site, TensorRecord]
    groups: Mapping[Group, TensorRecord]
    layers: Mapping[Site, LayerInputs]
    model: ModelDigest
    calls: tuple[str, ...]
    batches: int
    rows: int
    sample: tuple[Leaves, ...] = ()

    @property
    def model_digest(self) -> str:
        """Hash of the captured graph's structure, and of its weights."""
        return str(self.model)

    @property
    def data_digest(self) -> str:
        """Hash of shapes, dtypes and values of all inputs, in order."""
        return joined(self.calls)

    def __repr__(self) -> str:
        return (
            f"Statistics({self.batches} batches, {self.rows} rows: {len(self.tensors)} tensors, "
            f"{len(self.layers)} layers; model {self.model}, data {self.data_digest})"
        )

    def require_model(self, graph: GraphModule) -> None:
        """Refuse a captured graph that these statistics are not of.

        Raises:
            CalibrationError: its structure or its weights differ.
        """
        self._require_same(ModelDigest.of(graph), "the model to quantize")

    def _require_same(self, other: ModelDigest, whose: str) -> None:
        if other == self.model:
            return
        differ = "weights" if other.structure == self.model.structure else "structure"
        told = {
            "weights": "has the same graph with other weights",
            "structure": "has another graph (other operators, names, or sizes of the example)",
        }[differ]
        message = f"the statistics are of model {self.model}, and {whose}, {other}, {told}"
        fix = "collect statistics of this model, with the example and options it is quantized with"
        raise CalibrationError(message, rule="other-model", site=differ, fix=fix)

    @staticmethod
    def merge(*parts: Statistics) -> Statistics:
        """Return the statistics of all parts' data, in their order.

        Histograms are joined on the wider range, where a count moves by one of its bins at most;
        means are rounded to float32; of held-out patches each part gives those that it kept, which
        may be others than one process would keep. All else is what that would have recorded.

        Args:
            parts: Statistics of one model, of different data: of equal data a warning says that it
                counts as often as it is given.

        Raises:
            ArgumentError: a part is something else.
            CalibrationError: there is none, or they are of different models.
        """
        if not parts:
            message = "there are no statistics to merge"
            raise CalibrationError(message, rule="no-batches", fix="give at least one")
        _require_parts(parts)
        for number, part in enumerate(parts[1:], start=1):
            parts[0]._require_same(part.model, f"that of part {number}")
        tensors = _by_key([part.tensors for part in parts])
        groups = _by_key([part.groups for part in parts])
        layers = _by_key([part.layers for part in parts])
        shared: dict[tuple[int, ...], LayerInputs] = {}
        for found in layers.values():
            key = tuple(map(id, found))  # linears that read one tensor still share one record
            shared.setdefault(key, LayerInputs.merge(found))
        return Statistics(
            {site: TensorRecord.merge(found) for site, found in tensors.items()},
            {group: TensorRecord.merge(found) for group, found in groups.items()},
            {site: shared[tuple(map(id, found))] for site, found in layers.items()},
            parts[0].model,
            tuple(call for part in parts for call in part.calls),
            sum(part.batches for part in parts),
            sum(part.rows for part in parts),
            _joined_sample(parts),
        )

    def save(self, path: str | Path) -> Path:
        """Write a file of plain data and return its path.

        Raises:
            FileError: it cannot be written.
        """
        about = {"model": list(self.model), "calls": list(self.calls)}
        counts = {"batches": self.batches, "rows": self.rows}
        found: dict[Group, TensorRecord] = {(site,): each for site, each in self.tensors.items()}
        records, tensors = encode(found | dict(self.groups), self.layers)
        sample, sampled_tensors = encode_sample(self.sample)
        header = about | counts | {"records": records, "sample": sample}
        plain_file.write(Path(path), header, tensors | sampled_tensors)
        return Path(path)

    @staticmethod
    def load(path: str | Path) -> Statistics:
        """Return what ``save`` wrote.

        Raises:
            FileError: there is no such file, it is damaged, or something else wrote it.
        """
        header, stored = plain_file.read(Path(path))
        try:
            records, layers = decode(header["records"], stored)
            return Statistics(
                {group[0]: each for group, each in records.items() if len(group) == 1},
                {group: each for group, each in records.items() if len(group) > 1},
                layers,
                ModelDigest(*map(str, header["model"])),
                tuple(map(str, header["calls"])),
                int(header["batches"]),
                int(header["rows"]),
                decode_sample(header["sample"], stored),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise FileError.damaged(path, error) from error


def _require_parts(parts: tuple[object, ...]) -> None:
    seen: dict[tuple[str, ...], int] = {}
    for number, part in enumerate(parts):
        if not isinstance(part, Statistics):
            message = f"part {number} is a {type(part).__name__}, not quantfx.Statistics"
            fix = "give each by itself: Statistics.merge(*parts)"
            raise ArgumentError(message, rule="wrong-type", site=f"part {number}", fix=fix)
        first = seen.setdefault(part.calls, number)
        if first != number:
            message = f"parts {first} and {number} are of the same data, which counts twice"
            fix = "give each shard once, and each process a shard of its own"
            warning = QuantfxWarning(message, rule="same-data", site=f"part {number}", fix=fix)
            warnings.warn(warning, stacklevel=3)


def _joined_sample(parts: Sequence[Statistics]) -> tuple[Leaves, ...]:
    """Return the calls that one process would have kept: none behind one that no part kept."""
    known: dict[str, Leaves] = {}
    for part in parts:
        known |= dict(zip(sorted(set(part.calls)), part.sample, strict=False))
    sample = Sample()
    for digest in sorted({each for part in parts for each in part.calls}):
        if digest not in known:
            break
        sample.add(digest, known[digest])
    return sample.calls


def _by_key(tables: list[Mapping[_Key, _Value]]) -> dict[_Key, list[_Value]]:
    """Return what all tables have; a part lacks what was not finite in its data."""
    return {
        key: [table[key] for table in tables]
        for key in tables[0]
        if all(key in table for table in tables)
    }
