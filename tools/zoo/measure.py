"""Take one network through all stages of quantfx, in its own process.

The row is written after every stage, so that a killed process leaves its findings.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import quantfx
from quantfx.passes.inputs.leaves import leaves_in
from quantfx.passes.report.mostly_float import add_reached
from quantfx.patterns.errors import QuantfxError, QuantfxWarning
from quantfx.result import Result
from quantfx.tools.measure.metrics import sqnr_db
from quantfx.tools.zoo.build import Inputs, Specimen, build
from quantfx.tools.zoo.networks import Network, ZooError, load_networks, select
from quantfx.tools.zoo.row import FloatOperator, Row, Stage, StageName

_LONGEST = 600
_AUTO_BATCHES = 8


class Measurement:
    """One network on its way; each method is a stage, in this order.

    Args:
        network: The network to measure.
        row: The row to fill.
    """

    def __init__(self, network: Network, row: Row) -> None:
        self._network = network
        self._row = row
        self._specimen: Specimen | None = None
        self._result: Result | None = None
        self._float: list[Any] = []
        self._quantized: list[Any] = []

    def build(self) -> None:
        """Make the network and compute its float outputs."""
        specimen = build(self._network)
        self._float = _outputs(specimen.model, specimen.test)
        self._row.parameters = sum(each.numel() for each in specimen.model.parameters())
        self._specimen = specimen

    def quantize(self) -> None:
        """Quantize it for this machine."""
        specimen = self.specimen
        args, kwargs = specimen.example
        result = quantfx.quantize(
            specimen.model,
            args,
            example_kwargs=kwargs,
            calibration=[kwargs or args for args, kwargs in specimen.calibration],
            progress=False,
        )
        self._result = result
        balance = result.report.balance
        self._row.planned, self._row.lowered = result.report.planned, result.report.lowered or 0
        self._row.int8_macs = 1 - balance.float_macs / balance.macs if balance.macs else None
        self._row.floats = [
            FloatOperator(op, count=count, reason=reason, reads_weights=reads_weights, known=known)
            for (op, reason, reads_weights, known), count in Counter(
                (work.op, work.reason, work.weight_bytes > 0, work.macs is not None)
                for work in add_reached(result.report.work, result.report.sites)
                if not work.planned
            ).items()
        ]

    def module(self) -> None:
        """Run the q/dq graph and the kernels, without a compiler."""
        result = self.result
        self._quantized = _outputs(result.quantized, self.specimen.test)
        outputs = _outputs(result.module, self.specimen.test)
        self._note("module", self._float, outputs)
        self._note("q/dq, module", self._quantized, outputs)
        sites = result.compare_sites()
        self._row.steps = max((each.steps or 0 for each in sites), default=0)
        self._row.error = max((each.error or 0.0 for each in sites), default=0.0)

    def compile(self) -> None:
        """Compile it and run that."""
        compiled = self.result.compile()
        self._row.compiled = self.result.report.compiled or 0
        outputs = _outputs(compiled, self.specimen.test)
        self._note("compiled", self._float, outputs)
        if self._quantized:
            self._note("q/dq, compiled", self._quantized, outputs)

    def file(self) -> None:
        """Save it, load it and run that."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "network.quantfx")
            self.result.save(path)
            loaded = quantfx.load(path)
        self._note("loaded", self._float, _outputs(loaded.module, self.specimen.test))

    def auto(self) -> None:
        """Let it quantize itself in use."""
        specimen = self.specimen
        model = quantfx.auto(specimen.model, calibration_batches=_AUTO_BATCHES)
        _outputs(model, specimen.calibration[:_AUTO_BATCHES])
        outputs = _outputs(model, specimen.test)
        self._row.auto_state = model.state
        self._note("auto", self._float, outputs)

    @property
    def specimen(self) -> Specimen:
        """The network and its data, once built."""
        if self._specimen is None:
            raise ZooError("it was not built", rule="not-built")
        return self._specimen

    @property
    def result(self) -> Result:
        """The quantized network."""
        if self._result is None:
            raise ZooError("it was not quantized", rule="not-built")
        return self._result

    def can(self, stage: StageName) -> bool:
        """Whether the requirements of ``stage`` are met."""
        if stage == "build":
            return True
        if stage in ("quantize", "auto"):
            return self._specimen is not None
        return self._result is not None

    def _note(self, what: str, reference: list[Any], outputs: list[Any]) -> None:
        self._row.decibels[what] = lowest_decibels(reference, outputs)


def measure(network: Network, row: Row, write: Callable[[Row], None]) -> None:
    """Run every stage that can run; errors are part of the row.

    Args:
        network: The network to measure.
        row: The row to fill.
        write: Called before each stage and at the end.
    """
    measurement = Measurement(network, row)
    stages: tuple[tuple[StageName, Callable[[], None]], ...] = (
        ("build", measurement.build),
        ("quantize", measurement.quantize),
        ("module", measurement.module),
        ("compile", measurement.compile),
        ("file", measurement.file),
        ("auto", measurement.auto),
    )
    for name, run in stages:
        if not measurement.can(name):
            continue
        row.stages[name] = Stage("ended", 0.0)  # remains if the process ends here
        write(row)
        row.stages[name] = _run(run, row.warnings)
    write(row)


def lowest_decibels(reference: list[Any], outputs: list[Any]) -> float:
    """Return the signal to noise of the worst output, over all batches.

    Args:
        reference: Outputs of the float network, batch by batch.
        outputs: Outputs of another network, nested in any way.

    Raises:
        ZooError: the outputs do not correspond.
    """
    ours = [[leaf for leaf in leaves_in(each) if _is_floating(leaf)] for each in reference]
    theirs = [[leaf for leaf in leaves_in(each) if _is_floating(leaf)] for each in outputs]
    shapes, other = ([[leaf.shape for leaf in each] for each in rows] for rows in (ours, theirs))
    if shapes != other or not ours or not ours[0]:
        message = f"outputs have shapes {other[:1]}, the float network's {shapes[:1]}"
        raise ZooError(message, rule="other-shapes")
    return min(
        sqnr_db(_flat(one), _flat(two))
        for one, two in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
    )


def _run(stage: Callable[[], None], noted: list[str]) -> Stage:
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", QuantfxWarning)
            stage()
    except QuantfxError as error:
        traceback.print_exc()
        return Stage("refused", time.perf_counter() - start, _short(error))
    except Exception as error:  # any error is what a user would see
        traceback.print_exc()
        return Stage("foreign error", time.perf_counter() - start, _short(error))
    seconds = time.perf_counter() - start
    noted.extend(str(each.message)[:_LONGEST] for each in caught if each.category is QuantfxWarning)
    return Stage("done", seconds)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_LONGEST]


def _outputs(model: Any, batches: tuple[Inputs, ...]) -> list[Any]:
    with torch.no_grad():
        return [model(*args, **kwargs) for args, kwargs in batches]


def _is_floating(leaf: object) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()


def _flat(tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in tensors])


def main(arguments: list[str]) -> None:
    """Measure one network in this process.

    Args:
        arguments: Name of the network, commit of quantfx, file of the row, and the memory limit of
            this process in gigabytes.
    """
    name, commit, path, gigabytes = arguments
    limit = math.floor(float(gigabytes) * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    (network,) = select(load_networks(), [name])

    def write(row: Row) -> None:
        part = Path(f"{path}.part")
        part.write_text(row.to_json(), encoding="utf-8")
        part.replace(path)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        measure(network, Row(network.name, network.library, commit), write)


if __name__ == "__main__":
    main(sys.argv[1:])
