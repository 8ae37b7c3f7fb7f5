"""State of a model is found wherever it is kept, put back, and refused where results need it."""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quantfx.passes.capture.capture import capture
from quantfx.passes.errors import CaptureError
from quantfx.passes.model.state import ModelState, restored
from tests.refusals import refused

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
CALLS = 0
TABLE: dict[int, Tensor] = {}


class Slotted:
    __slots__ = ("__h", "n")

    def __init__(self) -> None:
        self.n = 0
        self.__h: Any = None

    def step(self, y: Tensor) -> Tensor:
        self.__h = y if self.__h is None else self.__h * 0.5 + y
        return self.__h


@dataclass(frozen=True)
class Frozen:
    inner: dict[str, Any] = field(default_factory=dict[str, Any])


class Holding(nn.Module):
    """Computes ``step(self, linear(x))``, with an object to keep state in."""

    calls = 0

    def __init__(self, held: Any, step: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.held = held
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return self.step(self.held, self.linear(x))


def _keep(held: Any, y: Tensor) -> Tensor:
    held["h"] = held["h"] * 0.5 + y if "h" in held else y
    return held["h"] * 1


def _keep_default(held: Any, y: Tensor) -> Tensor:
    held["h"] = held["h"] * 0.5 + y
    return held["h"] * 1


def _keep_frozen(held: Any, y: Tensor) -> Tensor:
    return _keep(held.inner, y)


def _append(held: Any, y: Tensor) -> Tensor:
    held.append(y)
    return y * len(held)


def _collect(held: Any, y: Tensor) -> Tensor:
    held.add(len(held))
    return y * len(held)


def _count(held: Any, y: Tensor) -> Tensor:
    held.n += 1
    return y * held.n


def _count_in_list(held: Any, y: Tensor) -> Tensor:
    return _count(held[0], y)


def _count_in_array(held: Any, y: Tensor) -> Tensor:
    held += 1
    return y * float(held[0])


def _count_in_tensor(held: Any, y: Tensor) -> Tensor:
    held[0].data = held[0] + 1
    return y * len(held) * (1 if torch.compiler.is_exporting() else held[0].mean())


def _toggle(held: Any, y: Tensor) -> Tensor:
    held.n = 1 - held.n
    return y * (1 + held.n)


def _slotted(held: Slotted, y: Tensor) -> Tensor:
    return held.step(y)


def _in_class(held: Any, y: Tensor) -> Tensor:
    Holding.calls += 1
    return y * Holding.calls


def _in_global(held: Any, y: Tensor) -> Tensor:
    global CALLS
    CALLS += 1
    return y * CALLS


def _next(held: Any, y: Tensor) -> Tensor:
    return y * next(held)


def _closure() -> Callable[[Any, Tensor], Tensor]:
    count = 0

    def step(held: Any, y: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return y * count

    return step


KINDS: dict[str, tuple[Callable[[], Any], Callable[[Any, Tensor], Tensor], str]] = {
    "dict": (dict, _keep, r"self\.held"),
    "OrderedDict": (OrderedDict, _keep, r"self\.held"),
    "defaultdict": (lambda: defaultdict(float), _keep_default, r"self\.held"),
    "frozen": (Frozen, _keep_frozen, r"self\.held\.inner"),
    "list": (list, _append, r"self\.held"),
    "deque": (lambda: deque(maxlen=3), _append, r"self\.held"),
    "set": (set, _collect, r"self\.held"),
    "namespace": (lambda: SimpleNamespace(n=0), _count, r"self\.held\.n"),
    "in a list": (lambda: [SimpleNamespace(n=0)], _count_in_list, r"self\.held\.n"),
    "in a tuple": (lambda: (SimpleNamespace(n=0),), _count_in_list, r"self\.held\.n"),
    "array": (lambda: np.zeros(1), _count_in_array, r"self\.held"),
    "tensor": (lambda: [torch.zeros(2)], _count_in_tensor, r"self\.held"),
    "toggle": (lambda: SimpleNamespace(n=0), _toggle, r"self\.held\.n"),
    "slots": (Slotted, _slotted, r"self\.held\._Slotted__h"),
    "class": (lambda: None, _in_class, r"Holding\.calls"),
    "global": (lambda: None, _in_global, r"[\w.]*test_state\.CALLS"),
    "closure": (lambda: None, _closure(), r"count of _closure"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_state_is_refused_by_name_and_put_back(kind: str) -> None:
    make, step, name = KINDS[kind]
    model = Holding(make(), step).eval()
    with torch.no_grad(), restored(model):
        first = model(X)
    with refused("plain-state", CaptureError, says=rf"{name}\b"):
        capture(model, (X,))
    with torch.no_grad(), restored(model):
        assert torch.equal(model(X), first)


def test_state_that_cannot_be_opened_is_refused_by_what_it_does() -> None:
    model = Holding(itertools.count(1), _next).eval()
    with refused("unseen-state", CaptureError):
        capture(model, (X,))
    capture(model, (X,), compare=False)


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_put_back(kind: str) -> None:
    make, step, _ = KINDS[kind]
    model = Holding(make(), step).eval()
    with torch.no_grad():
        with restored(model) as state:
            first = model(X)
            assert state.changed()
        assert not state.changed()
        with restored(model):
            assert torch.equal(model(X), first)


@functools.lru_cache
def _positions(length: int) -> Tensor:
    return torch.arange(length).float()


def _cached(held: Any, y: Tensor) -> Tensor:
    return y + _positions(y.shape[1])


def _tabled(held: Any, y: Tensor) -> Tensor:
    if y.shape[1] not in TABLE:
        TABLE[y.shape[1]] = torch.arange(y.shape[1]).float()
    return y + TABLE[y.shape[1]]


def _method(held: Any, y: Tensor) -> Tensor:
    return y + held.positions(y.shape[1])


class Positions:
    @functools.lru_cache  # noqa: B019  what users write
    def positions(self, length: int) -> Tensor:
        return torch.arange(length).float()


@pytest.mark.parametrize(
    ("held", "step"), [(None, _cached), (None, _tabled), (Positions(), _method)]
)
def test_caches_work_and_keep_nothing_of_the_export(
    held: Any, step: Callable[[Any, Tensor], Tensor]
) -> None:
    model = Holding(held, step).eval()
    graph = capture(model, (X,))
    with torch.no_grad():
        for rows in (4, 2):
            torch.testing.assert_close(graph(X[:rows]), model(X[:rows]))
    for each in (_positions(8), TABLE.get(8, X), Positions().positions(8)):
        assert type(each) is Tensor


def test_a_cache_out_of_sight_is_told() -> None:
    hidden: dict[int, Tensor] = {}

    def positions(length: int) -> Tensor:
        return hidden.setdefault(length, torch.arange(length).float())

    class Opaque:
        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            return positions

    opaque: Any = Opaque()
    endless = iter(lambda: opaque.anything, None)  # an iterator cannot be opened
    model = Holding(endless, lambda it, y: y + next(it)(8)).eval()
    with refused("unseen-cache", CaptureError, fix="register_buff"):
        capture(model, (X,))


def test_parameters_are_not_copied() -> None:
    model = nn.LSTM(4, 4)  # keeps a list of its weights
    parameters = {id(each) for each in model.parameters()}
    assert not [part for part in ModelState(model)._parts if id(part.owner) in parameters]


def test_libraries_and_torch_are_not_opened() -> None:
    import logging

    class Logs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log = logging.getLogger("quantfx.test")

        def forward(self, x: Tensor) -> Tensor:
            self.log.debug("called")
            return torch.nn.functional.relu(x)

    owners = [part.owner for part in ModelState(Logs())._parts]
    kinds = {type(each).__module__.partition(".")[0] for each in owners}
    assert "logging" not in kinds
    assert len(owners) < 40
