"""Statistics: results of one pass over the data for a model, valid for every recipe."""

from __future__ import annotations

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
from quantfx.patterns.errors import warn

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

Group = tuple[Site, ...]
"""The producers of a sharing group's tensors, sorted."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """The result of ``quantfx.collect``; ``quantize(statistics=...)`` takes it in place of data.

    A tensor is identified by its producer in the prepared graph, ``Site(path of the graph, node)``.
    Weights are not recorded.

    Attributes:
        tensors: Record of each tensor that some config of the backend may quantize.
        groups: Joint records of tensors that share qparams by default, by their producers.
        layers: Inputs of each convolution and linear with a stored weight, by call. Transposed
            convolutions have none.
        model: Digest of the model.
        calls: Digest of the inputs of each recorded call, in order.
        batches: Number of batches.
        rows: First dimension of the first input, summed over all calls.
        sample: Inputs of the calls with the smallest digests, one value per placeholder of the
            graph: as many calls as fit into ``MOST_SAMPLED`` bytes, or none if no layers were
            recorded.
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
        """Hash of the captured graph's structure and weights."""
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
        """Refuse a captured graph other than the graph of these statistics.

        Raises:
            CalibrationError: its structure or its weights differ.
        """
        self._require_same(ModelDigest.of(graph), "the model to quantize")

    def _require_same(self, other: ModelDigest, whose: str) -> None:
        if other == self.model:
            return
        differ = "weights" if other.structure == self.model.structure else "structure"
        told = {
            "weights": "has the same graph with different weights",
            "structure": "has a different graph (operators, names, or sizes of the example differ)",
        }[differ]
        message = f"the statistics are of model {self.model}, but {whose}, {other}, {told}"
        fix = "collect statistics of this model, with the example and options it is quantized with"
        raise CalibrationError(message, rule="other-model", site=differ, fix=fix)

    @staticmethod
    def merge(*parts: Statistics) -> Statistics:
        """Return the statistics of all parts' data, in their order.

        Histograms are joined on the wider range, where a count moves by at most one bin; means are
        rounded to float32. Each part contributes the held-out patches that it kept, which may
        differ from the patches that a single process would keep. Everything else equals what a
        single process would have recorded.

        Args:
            parts: Statistics of one model and different data. Equal data causes a warning that it
                counts as often as it is given.

        Raises:
            ArgumentError: a part is not ``Statistics``.
            CalibrationError: there is no part, or parts are of different models.
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
            key = tuple(map(id, found))  # linears that read one tensor keep sharing one record
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
            FileError: the file cannot be written.
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
            FileError: the file is missing or damaged, or ``save`` did not write it.
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
            fix = "give each separately: Statistics.merge(*parts)"
            raise ArgumentError(message, rule="wrong-type", site=f"part {number}", fix=fix)
        first = seen.setdefault(part.calls, number)
        if first != number:
            message = f"parts {first} and {number} are of the same data, which counts twice"
            fix = "give each shard once, and each process its own shard"
            warn(message, rule="same-data", site=f"part {number}", fix=fix, stacklevel=3)


def _joined_sample(parts: Sequence[Statistics]) -> tuple[Leaves, ...]:
    """Return the calls that one process would have kept: none after a call that no part kept."""
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
    """Return the entries that all tables have; a part lacks tensors with non-finite data."""
    return {
        key: [table[key] for table in tables]
        for key in tables[0]
        if all(key in table for table in tables)
    }
