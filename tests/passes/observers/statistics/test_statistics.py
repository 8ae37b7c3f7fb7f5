"""Parts merge to what one process records, files hold all of it, and other models are refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.backends.x86 import x86
from quantfx.collect_statistics import collect_graph
from quantfx.passes.errors import ArgumentError, CalibrationError, FileError
from quantfx.passes.graph.graphs import Site
from quantfx.passes.observers.statistics.statistics import Statistics
from quantfx.passes.observers.statistics.tensor_record import TensorRecord
from quantfx.tools.models.seeded import seeded
from tests.models.small import CatPoolNet
from tests.passes.observers.distributions import bins_apart
from tests.refusals import refused, warned
from tests.unchecked import capture

BATCHES = [
    torch.randn(2, 3, 80, 80, generator=torch.Generator().manual_seed(step)) * (1 + step)
    for step in range(4)
]


@functools.cache
def graph() -> GraphModule:
    return capture(seeded(CatPoolNet), (BATCHES[0],))


def collected(*batches: Tensor) -> Statistics:
    return collect_graph(graph(), x86(), batches, progress=False)


@functools.cache
def whole() -> Statistics:
    return collected(*BATCHES)


def assert_equal_records(one: TensorRecord, other: TensorRecord) -> None:
    for name in ("histogram", "min_val", "max_val", "extremes"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert (one.channels is None) == (other.channels is None)
    if one.channels is not None and other.channels is not None:
        for (name, ours), theirs in zip(
            one.channels.named_buffers(), other.channels.buffers(), strict=True
        ):
            assert torch.equal(ours, theirs), name


def assert_near(merged: TensorRecord, one: TensorRecord) -> None:
    """All is equal but the counts, which are a bin or two off."""
    for name in ("min_val", "max_val", "extremes"):
        assert torch.equal(getattr(merged, name), getattr(one, name)), name
    # A range that grows in one process moves counts as merging does.
    assert bins_apart(merged.histogram, one.histogram) <= 2


def test_parts_merge_to_the_whole() -> None:
    merged = Statistics.merge(collected(*BATCHES[:1]), collected(*BATCHES[1:]))
    one = whole()
    assert (merged.batches, merged.rows, merged.calls) == (4, 8, one.calls)
    assert merged.data_digest == one.data_digest
    assert merged.tensors.keys() == one.tensors.keys()
    assert merged.groups.keys() == one.groups.keys()
    for site, record in merged.tensors.items():
        assert_near(record, one.tensors[site])
    for group, record in merged.groups.items():
        assert_near(record, one.groups[group])
    assert merged.layers.keys() == one.layers.keys()
    for site, inputs in merged.layers.items():
        # More than 4096 patches a call: the same are taken in whichever part a batch is.
        assert inputs.rows == one.layers[site].rows < 8 * 80 * 80
        torch.testing.assert_close(inputs.gram, one.layers[site].gram)


def test_channels_merge_without_a_loss() -> None:
    site = next(site for site, each in whole().tensors.items() if each.channels is not None)
    parts = [collected(batch).tensors[site] for batch in BATCHES]
    merged, one = TensorRecord.merge(parts).channels, whole().tensors[site].channels
    assert merged is not None
    assert one is not None
    for (name, ours), theirs in zip(merged.named_buffers(), one.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0, msg=name)
    assert parts[0].channels is not None
    assert int(parts[0].channels.rows) < int(merged.rows), "parts stay as they are"


def test_a_range_too_wide_for_bins_merges_as_a_range() -> None:
    far = torch.tensor(3e38)
    low, high = (
        TensorRecord(torch.ones(2048), value, value, value.expand(1, 2)) for value in (-far, far)
    )
    merged = TensorRecord.merge([low, high])
    assert (float(merged.min_val), float(merged.max_val)) == (float(-far), float(far))
    assert not merged.histogram.any()


def test_what_one_part_lacks_the_merge_lacks() -> None:
    one = whole()
    site = next(iter(one.tensors))
    less = replace(one, tensors={s: each for s, each in one.tensors.items() if s != site})
    for parts in ((one, less), (less, one)):
        assert Statistics.merge(*parts).tensors.keys() == less.tensors.keys()


def test_parts_of_other_models_do_not_merge() -> None:
    other = capture(seeded(CatPoolNet, seed=1), (BATCHES[0],))
    part = collect_graph(other, x86(), BATCHES[:1], progress=False, layers=False)
    with refused("other-model", CalibrationError, site="weights", says="part 1"):
        Statistics.merge(whole(), part)
    with refused("no-batches", CalibrationError):
        Statistics.merge()
    with refused("wrong-type", ArgumentError, site="part 0", fix=r"*parts"):
        Statistics.merge(cast(Any, [whole(), whole()]))


def test_equal_data_is_told_to_count_twice() -> None:
    one, other = collected(*BATCHES[:1]), collected(*BATCHES[1:])
    with warned("same-data", site="part 2", says="parts 0 and 2"):
        merged = Statistics.merge(one, other, one)
    assert merged.batches == len(BATCHES) + 1


def test_other_models_are_refused_with_what_differs() -> None:
    whole().require_model(graph())
    with refused("other-model", CalibrationError, site="structure"):
        whole().require_model(capture(seeded(lambda: nn.Conv2d(3, 3, 1)), (BATCHES[0],)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return whole().save(tmp_path / "data.statistics")


def test_a_file_holds_all(path: Path) -> None:
    loaded, one = Statistics.load(path), whole()
    assert repr(loaded) == repr(one)
    assert (loaded.model, loaded.calls) == (one.model, one.calls)
    assert list(loaded.tensors) == list(one.tensors)
    assert list(loaded.groups) == list(one.groups)
    for site, record in one.tensors.items():
        assert_equal_records(loaded.tensors[site], record)
    for group, record in one.groups.items():
        assert_equal_records(loaded.groups[group], record)
    for site, inputs in one.layers.items():
        assert torch.equal(loaded.layers[site].gram, inputs.gram)
        assert torch.equal(loaded.layers[site].mean, inputs.mean)
        assert loaded.layers[site].rows == inputs.rows
    assert path.read_bytes() == loaded.save(path).read_bytes(), "equal statistics, equal files"


def with_format(content: bytes) -> bytes:
    return content.replace(b'"format": 3,', b'"format": 7,')


def with_other_bytes(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


def with_a_longer_shape(content: bytes) -> bytes:
    assert content.count(b'"shape": [2048]')
    return content.replace(b'"shape": [2048]', b'"shape": [9048]', 1)


def with_another_shape(content: bytes) -> bytes:
    """As many bytes, but no histogram."""
    return content.replace(
        b'"dtype": "float32", "shape": [2048]', b'"dtype": "float64", "shape": [1024]', 1
    )


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (with_format, "file-version"),
        (with_other_bytes, "damaged-file"),
        (with_a_longer_shape, "damaged-file"),
        (with_another_shape, "damaged-file"),
        (lambda content: content[:-100], "damaged-file"),
        (
            lambda content: content[:19] + (10**5).to_bytes(8, "little") + b"[" * 10**5,
            "damaged-file",
        ),
        (lambda content: content[:40], "damaged-file"),
        (lambda content: content.replace(b'"sites"', b'"cites"'), "damaged-file"),
        (lambda content: b"PK" + content, "foreign-file"),
        (lambda _: b"", "foreign-file"),
    ],
)
def test_other_files_are_refused(path: Path, edit: Callable[[bytes], bytes], rule: str) -> None:
    path.write_bytes(edit(path.read_bytes()))
    with refused(rule, FileError, site="data.statistics"):
        Statistics.load(path)


def test_places_without_a_file_are_refused(tmp_path: Path) -> None:
    with refused("no-such-file", FileError):
        Statistics.load(tmp_path / "none")
    for use in (Statistics.load, whole().save):
        with refused("not-a-file", FileError):
            use(tmp_path)
    with refused("no-such-file", FileError, fix="create it first"):
        whole().save(tmp_path / "none" / "data")


def test_layers_that_share_a_record_share_it_in_files(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            both: Tensor = self.a(x) + self.b(x)
            return both

    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    found = collect_graph(capture(seeded(Two), (x,)), x86(), [x, x], progress=False)
    for each in (
        found,
        Statistics.load(found.save(tmp_path / "s")),
        Statistics.merge(found, found),
    ):
        assert each.layers[Site("", "linear")] is each.layers[Site("", "linear_1")]
