"""The fields of errors, and the text that is made of them."""

from __future__ import annotations

import copy
import pickle

import pytest

from quantfx import errors
from quantfx.errors import ConfigError, PatternError, QuantfxError, QuantfxWarning
from quantfx.patterns.errors import unknown_name

KINDS = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["pickle", "copy", "deepcopy"])
def test_fields_outlive_pickling_and_copying(
    kind: type[QuantfxError | QuantfxWarning], how: str
) -> None:
    error = kind("'a' is odd", rule="name-form", site="a", fix="write b")
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error)) if how == "pickle" else getattr(copy, how)(error)
    assert type(again) is kind
    assert str(again) == str(error) == "'a' is odd: write b"
    assert vars(again) == vars(error)
    assert (again.rule, again.site, again.fix) == ("name-form", "a", "write b")
    assert again.__notes__ == ["a note"]


@pytest.mark.parametrize(
    ("message", "fix", "text"),
    [
        ("x is odd", "", "x is odd"),
        ("x is odd", "write y", "x is odd: write y"),
        ("x: it is odd.", "write y", "x: it is odd. Write y"),
        ("2 things:\n  x\n  y", "write z", "2 things:\n  x\n  y\nwrite z"),
    ],
)
def test_the_text_is_made_of_message_and_fix(message: str, fix: str, text: str) -> None:
    assert str(QuantfxError(message, rule="name-form", fix=fix)) == text


def test_a_rule_is_required() -> None:
    with pytest.raises(TypeError, match="rule"):
        QuantfxError("x is odd")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_a_place_goes_before_the_text_and_the_site() -> None:
    error = PatternError("'y' is odd", rule="name-form", site="y", fix="write x")
    inner = error.within("line 3", ConfigError)
    assert isinstance(inner, ConfigError)
    assert str(inner) == "line 3: 'y' is odd: write x"
    assert (inner.rule, inner.site, inner.fix) == ("name-form", "line 3: y", "write x")
    alone = QuantfxError("it is odd", rule="name-form").within("line 3", ConfigError, told="no: ")
    assert (str(alone), alone.site) == ("line 3: no: it is odd", "line 3")


def test_a_warning_says_the_same() -> None:
    error = ConfigError("'y' is odd", rule="name-form", site="y", fix="write x")
    warning = error.warning()
    assert isinstance(warning, QuantfxWarning)
    assert (str(warning), vars(warning)) == (str(error), vars(error))


def test_an_unknown_name_comes_with_the_nearest_and_all_that_there_are() -> None:
    error = unknown_name(ConfigError, "mode", "statik", ("static", "float"))
    assert str(error) == (
        "no mode 'statik' (did you mean 'static'?): choose one of 'static', 'float'"
    )
    assert (type(error), error.rule, error.site) == (ConfigError, "unknown-name", "statik")
    many = unknown_name(ConfigError, "key", "x", map(str, range(100)), of="a file")
    assert str(many) == "a file has no key 'x'"
