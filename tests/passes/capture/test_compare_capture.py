"""State in attributes, and graphs that compute something else, are found when they are captured."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantfx import prepare_qat
from quantfx.passes.capture.capture import capture
from quantfx.passes.errors import CaptureError
from quantfx.patterns.errors import QuantfxWarning
from tests.refusals import refused, warned

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.h: Any = None
        self.n = 0
        self.seen: list[Any] = []
        self.table: dict[str, Any] = {"h": torch.zeros(2, 8)}


class Recurrent(Stateful):
    def forward(self, x: Tensor) -> Tensor:
        self.h = torch.tanh(self.linear(x) + (0 if self.h is None else self.h))
        return self.h


class InDict(Stateful):
    def forward(self, x: Tensor) -> Tensor:
        self.table["h"] = self.linear(x) + self.table["h"]
        return self.table["h"]


class InPlace(Stateful):
    def __init__(self) -> None:
        super().__init__()
        self.h = torch.zeros(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        self.h.add_(self.linear(x))
        return self.h * 1


class Previous(Stateful):
    def forward(self, x: Tensor) -> Tensor:
        before, self.h = self.h, x
        return self.linear(x if before is None else before)


class Appends(Stateful):
    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return self.linear(x) + len(self.seen)


class Counts(Stateful):
    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        return self.linear(x) * self.n


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Counts()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class OnlyCounts(Stateful):
    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        return self.linear(x)


class Caches(Stateful):
    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "grid"):
            self.grid = torch.arange(8.0)
        return self.linear(x) + self.grid


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Recurrent, "self.h"),
        (InDict, "self.table"),
        (Previous, "self.h"),
        (Appends, "self.seen"),
        (Counts, "self.n"),
        (Inner, "self.inner.n"),
    ],
)
def test_state_in_attributes_is_refused_by_name(kind: type[nn.Module], name: str) -> None:
    model = kind().eval()
    with refused("plain-state", CaptureError, site=name, fix="register_buffer"):
        capture(model, (X,))


@pytest.mark.parametrize(
    "kind", [Recurrent, InDict, InPlace, Previous, Appends, Counts, OnlyCounts, Caches]
)
def test_the_model_is_as_it_was(kind: type[Stateful]) -> None:
    model = kind().eval()
    before = dict(vars(model))
    held = list(model.seen), dict(model.table), torch.zeros(2, 8)
    with contextlib.suppress(CaptureError):
        capture(model, (X,))
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())
    assert (model.seen, list(model.table)) == (held[0], list(held[1]))
    assert model.table["h"] is held[1]["h"]
    assert torch.equal(model.table["h"], held[2])
    assert model.h is None or not model.h.any()


@pytest.mark.parametrize("kind", [OnlyCounts, Caches])
def test_attributes_that_decide_nothing_are_allowed(kind: type[nn.Module]) -> None:
    model = kind().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = capture(model, (X,))
    torch.testing.assert_close(graph(X), model(X))


def test_a_tensor_that_is_written_to_is_carried_as_a_buffer_is() -> None:
    model = InPlace().eval()
    graph = capture(model, (X,))
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(graph(X), model(X))


def test_state_in_buffers_is_carried() -> None:
    class Buffered(nn.Module):
        h: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.register_buffer("h", torch.zeros(2, 8))

        def forward(self, x: Tensor) -> Tensor:
            self.h.copy_(torch.tanh(self.linear(x) + self.h))
            return self.h * 1

    model = Buffered().eval()
    graph = capture(model, (X,))
    assert not model.h.any()
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(graph(X), model(X))


def test_a_fast_path_that_export_does_not_take_is_told() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 1).eval()
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[1, 3:] = True
    kwargs = {"src_key_padding_mask": padding}
    with warned("capture-differs", site="TransformerEncoder") as told:
        capture(model, (torch.randn(2, 5, 16),), kwargs)
    text = str(told[-1].message)
    assert "in 2 of 10 rows, the first of them at [1, 3]" in text
    assert "torch.nn.TransformerEncoder takes a fast path" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        capture(model, (torch.randn(2, 5, 16),), kwargs, compare=False)


def test_a_submodule_with_a_fast_path_is_named() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.encoder, self.head = nn.TransformerEncoder(layer, 1), nn.Linear(16, 4)

        def forward(self, x: Tensor, padding: Tensor) -> Tensor:
            return self.head(self.encoder(x, src_key_padding_mask=padding))

    padding = torch.arange(5) > torch.tensor([[4], [2]])
    with warned("capture-differs", site="Wrapped", says=r"2 of 10 rows.*'encoder'.*fast path"):
        capture(Wrapped().eval(), (torch.randn(2, 5, 16), padding))


@pytest.mark.parametrize(
    "asked", [torch.compiler.is_exporting, torch.compiler.is_compiling, torch.is_grad_enabled]
)
def test_a_branch_of_the_models_own_is_named(asked: Any) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * (2 if asked() else 1)

    with warned("capture-differs", site="Branches", says=r"torch\.no_grad"):
        capture(Branches().eval(), (X,))


def test_regions_of_the_models_own_are_no_difference() -> None:
    class Regions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                y = self.linear(x).relu()
            with torch.autocast("cpu", torch.bfloat16):
                return self.linear(y).float()

    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        capture(Regions().eval(), (X,))


def test_the_first_submodule_that_differs_is_named() -> None:
    class Traced(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if torch.compiler.is_exporting() else x * 3

    model = nn.Sequential(nn.Linear(8, 8), Traced(), nn.Linear(8, 8)).eval()
    with warned("capture-differs", site="Sequential", says=r"'1' \(Traced\)"):
        capture(model, (X,))


def test_random_numbers_are_the_same_for_both() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        capture(Noisy().eval(), (X,))
    assert torch.equal(torch.get_rng_state(), state)


class CountsInTraining(Stateful):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.n += 1
        return self.linear(x) * (1 + 0 * self.n)


class WarmsUp(Stateful):
    def __init__(self) -> None:
        super().__init__()
        self.factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.dropout(self.linear(x), 0.5, self.training) * self.factor
        self.factor = min(self.factor * 2, 8.0) if self.training else 1.0
        return y


@pytest.mark.parametrize(
    ("kind", "name"), [(Recurrent, "self.h"), (Counts, "self.n"), (WarmsUp, "self.factor")]
)
def test_state_in_attributes_is_refused_for_training(kind: type[nn.Module], name: str) -> None:
    model = kind().train()
    held = vars(model)[name.removeprefix("self.")]
    with refused("plain-state", CaptureError, site=name):
        prepare_qat(model, (X,))
    assert vars(model)[name.removeprefix("self.")] is held
    assert model.training
    prepare_qat(model, (X,), compare=False)


@pytest.mark.parametrize("kind", [CountsInTraining, OnlyCounts, Caches])
def test_attributes_that_decide_nothing_are_allowed_in_training(kind: type[nn.Module]) -> None:
    model = nn.Sequential(kind(), nn.Dropout(0.5), nn.BatchNorm1d(8)).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        prepared = prepare_qat(model, (X,))
    assert model.training
    assert prepared.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    counters = [value for name, value in prepared.state_dict().items() if "num_batches" in name]
    assert not any(counters)


def test_usual_networks_are_prepared_for_training_without_a_word() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
    models: list[tuple[nn.Module, Tensor]] = [
        (nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(2, 5, 8)),
        (
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout2d(), nn.RReLU()),
            torch.randn(2, 3, 8, 8),
        ),
    ]
    for model, x in models:
        with warnings.catch_warnings():
            warnings.simplefilter("error", QuantfxWarning)
            prepare_qat(model.train(), (x,))
