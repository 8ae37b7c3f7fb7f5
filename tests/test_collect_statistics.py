"""One pass over the data serves every recipe, in one process or in several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.distributed as distributed
from torch.fx import GraphModule
from torch.utils.data import DataLoader, TensorDataset

import quantfx
from quantfx import Statistics
from quantfx.backends.x86 import x86
from quantfx.passes.errors import ArgumentError, CalibrationError
from quantfx.passes.graph.graphs import Site
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from tests.models.small import mlp
from tests.passes.observers.distributions import bins_apart
from tests.refusals import refused, warned
from tests.two_processes import run_two

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
BATCHES = [X * (1 + step % 3) for step in range(4)]


def collect(batches: Any = BATCHES, **options: Any) -> Statistics:
    return quantfx.collect(mlp(), X, batches, progress=False, **options)


def quantize(**options: Any) -> quantfx.Result:
    chosen: dict[str, Any] = {"check_inputs": False, "compare": False, "progress": False}
    return quantfx.quantize(mlp(), X, **(chosen | options))


@pytest.mark.parametrize("config", ["static", quantfx.Config().call("linear", None)])
def test_statistics_stand_for_the_batches(config: Any) -> None:
    backend = x86(observer="histogram")
    of_data = quantize(calibration=BATCHES, backend=backend, config=config)
    of_statistics = quantize(statistics=collect(), backend=backend, config=config)
    assert torch.equal(of_data.quantized(X), of_statistics.quantized(X))
    assert str(of_data.quantized.graph) == str(of_statistics.quantized.graph)


def test_batches_come_as_for_calibrate() -> None:
    loader = DataLoader(TensorDataset(torch.cat(BATCHES), torch.zeros(24)), batch_size=6)
    found = collect(loader, input_fn=lambda batch: batch[0])
    assert (found.batches, found.rows) == (4, 24)
    assert found.data_digest == collect().data_digest != collect(BATCHES[::-1]).data_digest
    assert found.model_digest == collect().model_digest
    with refused("no-batches", CalibrationError):
        collect([])
    with refused("input-dtype", CalibrationError, site="input"):
        collect([X.double()])
    with refused("not-finite", CalibrationError, site="batch 1: 0 (linear).input"):
        collect([X, X / 0])


def test_layers_are_left_out_if_not_wanted() -> None:
    assert collect().layers.keys() == {Site("", "linear"), Site("", "linear_1")}
    assert not collect(layers=False).layers


def test_the_config_of_the_backend_does_not_matter() -> None:
    dynamic = x86().with_config("dynamic")
    assert collect(backend=dynamic).tensors.keys() == collect().tensors.keys()


def test_batches_and_statistics_exclude_each_other() -> None:
    with refused("two-calibrations", ArgumentError, site="statistics"):
        quantize(calibration=BATCHES, statistics=collect())


def test_what_is_no_statistics_is_refused() -> None:
    with refused("wrong-type", ArgumentError, site="statistics", fix="Statistics.load"):
        quantize(statistics="data.statistics")


def test_repairs_by_statistics_without_layers_are_told() -> None:
    backend = x86(repair=True)
    with warned("not-recorded", site="statistics", fix="layers=True"):
        quantize(statistics=collect(layers=False), backend=backend)


def test_statistics_of_another_model_are_refused() -> None:
    other = mlp()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    found = quantfx.collect(other, X, BATCHES, progress=False)
    with refused("other-model", CalibrationError, site="weights"):
        quantize(statistics=found)


@dataclass(frozen=True)
class Repair(Pass):
    """Notes what it is given."""

    name: ClassVar[str] = "repair"
    needs_statistics: ClassVar[bool] = True
    given: ClassVar[list[Statistics | None]] = []

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Note the statistics."""
        self.given.append(context.statistics)
        return PassResult()


def test_a_pass_that_needs_statistics_gets_them_of_batches_too() -> None:
    backend = x86(observer="mse")
    pipeline = backend.convert_pipeline.before("insert-qdq", Repair())
    repairing = replace(backend, convert_pipeline=pipeline)
    Repair.given.clear()
    found = collect()
    repaired = quantize(calibration=BATCHES, backend=repairing)
    quantize(statistics=found, backend=repairing)
    collected, given = Repair.given
    assert collected is not None
    assert collected.data_digest == found.data_digest
    assert collected.layers.keys() == found.layers.keys()
    assert given is found
    plain = quantize(calibration=BATCHES, backend=backend)
    assert torch.equal(repaired.quantized(X), plain.quantized(X))


def work(rank: int, folder: str) -> None:
    world = distributed.group.WORLD
    own = [BATCHES[:1], BATCHES[1:]][rank]
    collect(own, group=world).save(Path(folder) / f"all.{rank}")
    collect(own).save(Path(folder) / f"own.{rank}")
    told = "nothing"
    try:
        collect([own, []][rank], group=world)
    except CalibrationError as error:
        told = error.rule
    (Path(folder) / f"told.{rank}").write_text(told)

    def unreadable() -> Iterator[torch.Tensor]:
        raise OSError("the disk is gone")
        yield X

    try:
        collect([unreadable(), BATCHES][rank], group=world)
    except (OSError, CalibrationError) as error:
        (Path(folder) / f"raised.{rank}").write_text(f"{type(error).__name__}: {error}")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_processes_and_files_give_what_one_process_does(tmp_path: Path) -> None:
    run_two(work, str(tmp_path))
    of_ranks = [Statistics.load(tmp_path / f"all.{rank}") for rank in range(2)]
    of_files = Statistics.merge(*(Statistics.load(tmp_path / f"own.{rank}") for rank in range(2)))
    one = collect()
    for each in (*of_ranks, of_files):
        assert (each.model, each.calls) == (one.model, one.calls)
        assert (each.batches, each.rows) == (one.batches, one.rows)
        for site, record in each.tensors.items():
            assert torch.equal(record.histogram, of_files.tensors[site].histogram)
            assert torch.equal(record.extremes, one.tensors[site].extremes)
            assert bins_apart(record.histogram, one.tensors[site].histogram) <= 1
        for site, inputs in each.layers.items():
            torch.testing.assert_close(inputs.gram, one.layers[site].gram)
    told = [(tmp_path / f"told.{rank}").read_text() for rank in range(2)]
    assert told == ["other-rank", "no-batches"]
    raised = [(tmp_path / f"raised.{rank}").read_text() for rank in range(2)]
    assert raised[0] == "OSError: the disk is gone"
    assert raised[1] == "CalibrationError: rank 0 of 2 failed: the disk is gone"
