from __future__ import annotations

import inspect
from collections import OrderedDict, defaultdict
from enum import Enum
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from quantfx.passes.errors import InputError
from quantfx.passes.inputs.check import InputCheck
from quantfx.passes.inputs.contract import InputContract, InputForm
from quantfx.passes.inputs.fits_traced import fits_traced
from quantfx.passes.inputs.leaves import leaves_of, structure_text
from tests.refusals import refused

X = torch.zeros(2, 4)


class Pair(NamedTuple):
    first: Any
    second: Any


def two(x: Any, y: Any) -> None: ...


def form(path: str, *shape: int | str, dtype: torch.dtype = torch.float32) -> InputForm:
    return InputForm(path, dtype=dtype, device="cpu", shape=shape)


def check(
    *forms: InputForm, ranges: dict[str, Any] | None = None, conditions: tuple[str, ...] = ()
) -> InputCheck:
    contract = InputContract(("x", "y"), forms, ranges=ranges or {}, conditions=conditions)
    return InputCheck(contract, inspect.signature(two))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            (X[:1], X),
            "input-shape: x",
        ),
        ((X, X[None]), "input-shape: y"),
        ((X.double(), X), "input-shape: x"),
        ((X.to("meta"), X), "input-shape: x"),
        ((3.0, X), "input-shape: x"),
        (([X], X), "input-structure"),
        ((X,), "input-names: x, y"),
        ((X, X, X), "input-names: x, y"),
    ],
)
def test_what_does_not_fit_is_named(inputs: tuple[Any, ...], message: str) -> None:
    checked = check(form("x", 2, 4), form("y", 2, 4))
    for _ in range(2):  # after a call that fits was remembered, too
        with refused(message, InputError):
            checked(inputs, {})
        checked((X, X), {})
    checked((X,), {"y": X})


@pytest.mark.parametrize(
    ("captured", "other"),
    [
        (2.0, 3.0),
        (2.0, 2),
        (1, True),
        (None, 0),
        ("sum", "mean"),
        (False, True),
        (2.0, X),
        (0.0, -0.0),
        (-0.0, 0.0),
    ],
)
def test_plain_values_are_those_of_the_capture(captured: object, other: object) -> None:
    checked = check(form("x", 2, 4), InputForm("y", value=captured))
    checked((X, captured), {})
    for _ in range(2):
        with refused("input-value", InputError, site="y"):
            checked((X, other), {})


def test_not_a_number_is_itself() -> None:
    check(form("x", 2, 4), InputForm("y", value=float("nan")))((X, float("nan")), {})


def test_free_sizes_agree_and_stay_in_range() -> None:
    checked = check(
        form("x", "s0", 4),
        form("y", "2*s0", "s1"),
        ranges={"s0": (1, 8), "s1": (2, None)},
        conditions=("Eq(Mod(s1, 2), 0)",),
    )
    for _ in range(2):
        checked((torch.zeros(3, 4), torch.zeros(6, 2)), {})
        for x, y, rule, says in (
            (9, (18, 2), "input-shape: x", "s0 = 9.*1 to 8"),
            (3, (5, 2), "input-shape: y", "size 5 in dimension 0.*for 6"),
            (3, (6, 1), "input-shape: y", "s1 = 1.*at least 2"),
            (3, (6, 3), "input-sizes: Eq(Mod(s1, 2), 0)", "s0 = 3, s1 = 3"),
        ):
            with refused(rule, InputError, says=says):
                checked((torch.zeros(x, 4), torch.zeros(y)), {})


def test_a_size_that_is_only_part_of_a_sum_is_found() -> None:
    checked = check(form("x", "2*s0", 4), form("y", "s0 + 1", 4), ranges={"s0": (1, None)})
    checked((torch.zeros(6, 4), torch.zeros(4, 4)), {})
    for x, y in ((5, 3), (6, 5)):
        with refused("input-shape", InputError):
            checked((torch.zeros(x, 4), torch.zeros(y, 4)), {})


def test_what_a_compiler_traces_says_the_same() -> None:
    checked = check(form("x", "s0", 4), InputForm("y", value=2.0), ranges={"s0": (1, None)})
    fits: list[tuple[tuple[Any, ...], dict[str, Any], bool]] = [
        ((X, 2.0), {}, True),
        ((X,), {"y": 2.0}, True),
        ((X, 3.0), {}, False),
        ((X.T, 2.0), {}, False),
        ((X.int(), 2.0), {}, False),
        ((X,), {"z": 2.0}, False),
        ((X,), {}, False),
    ]
    for args, kwargs, expected in fits:
        assert fits_traced(checked.contract, args, kwargs) is expected
        if expected:
            checked(args, kwargs)
        else:
            with pytest.raises(InputError):
                checked(args, kwargs)


def test_a_contract_is_plain_data() -> None:
    contract = InputContract(
        ("x", "y"),
        (form("x", "s0", 4, dtype=torch.int64), InputForm("y", value=float("inf"))),
        ranges={"s0": (1, None)},
        conditions=("Ne(s0, 7)",),
        checked=False,
    )
    assert InputContract.from_dict(contract.to_dict()) == contract


def test_subclasses_of_tensors_are_looked_at() -> None:
    checked = check(form("x", 2, 4), form("y", 2, 4))
    checked((X, torch.nn.Parameter(X)), {})
    with refused("input-shape", InputError, site="y"):
        checked((X, torch.nn.Parameter(X[:1])), {})
    given: Tensor = X
    checked((given, given), {})


@pytest.mark.parametrize(
    ("captured", "other"),
    [
        ([X], (X,)),
        ([], {}),
        ({"a": X, "b": X}, {"b": X, "a": X}),
        ({"a": X}, {"a": X, "c": []}),
        ([X, X], {0: X, 1: X}),
        ({"a": X}, OrderedDict(a=X)),
        (OrderedDict(a=X), {"a": X}),
        (defaultdict[str, Any](list, a=X), defaultdict[str, Any](int, a=X)),
        (Pair(X, X), (X, X)),
        ({"a": {"b": (X, [X])}}, {"a": {"b": (X, (X,))}}),
    ],
)
def test_structures_are_those_of_the_capture(captured: Any, other: Any) -> None:
    leaves = [(path, leaf) for path, leaf in leaves_of(inspect.signature(two), (X, captured), {})]
    forms = tuple(form(path, 2, 4) for path, _ in leaves)
    structures = ("*", structure_text(captured))
    contract = InputContract(("x", "y"), forms, ranges={}, structures=structures)
    assert InputContract.from_dict(contract.to_dict()) == contract
    checked = InputCheck(contract, inspect.signature(two))
    for _ in range(2):
        checked((X, captured), {})
        assert fits_traced(contract, (X, captured), {})
        with refused("input-shape", InputError, site="y"):
            checked((X, other), {})
        assert not fits_traced(contract, (X, other), {})


def test_an_argument_that_moved_is_given_by_name() -> None:
    contract = InputContract(
        ("x", "y"), (form("x", 2, 4), form("y", 2, 4)), ranges={}, positional=1
    )
    checked = InputCheck(contract, inspect.signature(two))
    checked((X,), {"y": X})
    assert fits_traced(contract, (X,), {"y": X})
    for _ in range(2):
        with refused("input-names", InputError, site="y"):
            checked((X, X), {})
    assert not fits_traced(contract, (X, X), {})


def test_conditions_hold_whatever_other_sizes_are() -> None:
    checked = check(
        form("x", "s0", 4),
        form("y", "s1", 4),
        ranges={"s0": (0, None), "s1": (0, None)},
        conditions=("s0 > s1 - 2", "Ne(s0, 5)", "s0 > 1"),
    )
    # 1 and 0 were tried by themselves, so that what is said of one size alone is of larger ones.
    for x, y, fits in (
        (4, 3, True),
        (1, 1, True),
        (0, 1, True),
        (1, 3, False),
        (5, 3, False),
        (0, 2, False),
    ):
        given = torch.zeros(x, 4), torch.zeros(y, 4)
        assert fits_traced(checked.contract, given, {}) is fits
        if fits:
            checked(given, {})
        else:
            with refused("input-sizes", InputError):
                checked(given, {})


class Kind(Enum):
    SUM = 1
    MEAN = 2


def test_values_are_told_by_what_they_are() -> None:
    checked = check(form("x", 2, 4), InputForm("y", value=Kind.SUM))
    with refused("input-value", InputError, site="y", fix="Kind.MEAN", says=r"Kind\.SUM"):
        checked((X, Kind.MEAN), {})
    checked = check(form("x", 2, 4), InputForm("y", value=torch.float32))
    with refused("input-value", InputError, site="y", fix="torch.int8", says=r"torch\.float32"):
        checked((X, torch.int8), {})
