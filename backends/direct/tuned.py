"""The file of tuned choices, which every plan made on this machine reads.

Keys hold what a choice depends on: CPU, version of oneDNN and number of threads, then the
computation and shapes of the step or region.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from quantfx.backends.checks.compiled import cache_folder
from quantfx.backends.direct.runtime.library import runtime
from quantfx.backends.direct.runtime.steps import Accumulate, Convolution
from quantfx.patterns.errors import QuantfxError

# The gain that a choice must exceed to be more than noise.
GAIN = 0.95


class Choice(NamedTuple):
    """A way to compute a step.

    Attributes:
        implementation: Number of oneDNN's implementations to skip.
        threads: Number of threads that share the work; 0 for all of the plan's.
    """

    implementation: int = 0
    threads: int = 0


class RouteTimes(NamedTuple):
    """Microseconds of one call of a region by each route, the least of all rounds.

    Attributes:
        name: Its first and last sites, for readers of the file.
        plan: Time as a prepared plan.
        operators: Time with torch's int8 operators; None if these may not take it.
        floats: Time with eager float operators.
    """

    name: str
    plan: float
    operators: float | None
    floats: float

    @property
    def loses(self) -> bool:
        """Whether torch's int8 operators are faster than the plan, by more than noise."""
        return self.operators is not None and self.operators < GAIN * self.plan

    @property
    def float_wins(self) -> bool:
        """Whether float operators are faster than either int8 route, by more than noise."""
        return self.floats < GAIN * min(self.plan, self.operators or self.plan)

    @property
    def float_gain(self) -> float:
        """The speed of float operators as a multiple of the faster int8 route's."""
        return min(self.plan, self.operators or self.plan) / self.floats


def tuning_file() -> Path:
    """Return the file, which may be copied to machines of the same kind."""
    return cache_folder() / "tuning.json"


def machine_key(threads: int) -> str:
    """Return a key of what choices depend on besides the step."""
    capabilities = torch.cpu.get_capabilities()
    instructions = sorted(name for name, has in capabilities.items() if has is True)
    found = runtime().onednn
    version = ".".join(map(str, found.version)) if found is not None else ""
    name = capabilities.get("cpu_name", "")
    return f"{name}; {' '.join(instructions)}; oneDNN {version}; {threads} threads"


def signature(step: Accumulate) -> str:
    """Return a key of a step's computation, shapes and dtypes."""
    words = [step.kernel, _described(step.source.layout), "to", _described(step.result.layout)]
    if isinstance(step, Convolution):
        moves = (step.stride, step.dilation, step.padding_low, step.padding_high, (step.groups,))
        words += ["by", _described(step.weight), *(_numbers(each) for each in moves)]
    words += [op.name for op in step.post]
    return " ".join(words)


def choices_for(threads: int) -> Mapping[str, Choice]:
    """Return the known choices for this number of threads, by signature."""
    known = _known().get(machine_key(threads), {})
    return {key: each for key, each in known.items() if isinstance(each, Choice)}


def routes_for(threads: int) -> Mapping[str, RouteTimes]:
    """Return the known times of regions for this number of threads, by ``region_key``."""
    known = _known().get(machine_key(threads), {})
    return {key: each for key, each in known.items() if isinstance(each, RouteTimes)}


def remember(threads: int, found: Mapping[str, Choice] | Mapping[str, RouteTimes]) -> None:
    """Add findings to the file, replacing earlier findings under the same keys.

    Args:
        threads: Number of threads that share the work.
        found: Findings by ``signature`` of steps, or by ``region_key``.

    Raises:
        QuantfxError: the file cannot be written.
    """
    known = {key: dict(each) for key, each in _read().items()}
    known.setdefault(machine_key(threads), {}).update(found)
    data = {
        key: {name: _plain(value) for name, value in each.items()} for key, each in known.items()
    }
    path = tuning_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(data, file, indent=1, sort_keys=True)
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)  # atomically: other processes may read it
    except OSError as error:
        raise QuantfxError(
            f"{path} cannot be written: {error}",
            rule="unwritable-file",
            site=str(path),
            fix="let QUANTFX_CACHE name a folder that can be written",
        ) from error
    _known.cache_clear()


def apply_choice(step: Accumulate, choice: Choice) -> None:
    """Apply a choice to a step."""
    step.implementation, step.threads = choice


@lru_cache(maxsize=1)
def _known() -> dict[str, dict[str, Choice | RouteTimes]]:
    return _read()


def _read() -> dict[str, dict[str, Choice | RouteTimes]]:
    try:
        data = json.loads(tuning_file().read_text())
    except (OSError, ValueError):
        data = None
    if not isinstance(data, dict):
        return {}  # missing, or not such a file: measure again
    return {key: _entries(plain) for key, plain in data.items() if isinstance(plain, dict)}


def _entries(plain: dict[str, Any]) -> dict[str, Choice | RouteTimes]:
    """Return the entries of one machine; malformed entries are measured again."""
    found: dict[str, Choice | RouteTimes] = {}
    for name, each in plain.items():
        with contextlib.suppress(TypeError, ValueError):
            found[name] = _found(each)
    return found


def _found(plain: Any) -> Choice | RouteTimes:
    if isinstance(plain, dict):
        times = RouteTimes(**plain)
        plan, floats = float(times.plan), float(times.floats)
        operators = None if times.operators is None else float(times.operators)
        if min(plan, floats, operators or plan) <= 0:
            raise ValueError("no call takes no time")
        return RouteTimes(str(times.name), plan, operators, floats)
    implementation, threads = plain
    return Choice(int(implementation), int(threads))


def _plain(found: Choice | RouteTimes) -> object:
    return found._asdict() if isinstance(found, RouteTimes) else found


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}[{_numbers(tuple(tensor.shape))}]"


def _numbers(values: tuple[int, ...]) -> str:
    return "x".join(map(str, values))
