from __future__ import annotations

import ctypes
import os
import subprocess

import pytest

from quantfx.tools.bench.profile import captured_stdout


def test_python_and_c_and_children_are_captured() -> None:
    with captured_stdout() as captured:
        os.write(1, b"python\n")  # under pytest, print goes elsewhere
        ctypes.CDLL(None).puts(b"c")
        ctypes.CDLL(None).fflush(None)
        subprocess.run(["echo", "child"], check=True)
    assert captured.text == "python\nc\nchild\n"


def test_unflushed_text_stays_on_its_side(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with captured_stdout() as captured:
        ctypes.CDLL(None).puts(b"within")
    print("after")
    assert captured.text == "within\n"
    assert capfd.readouterr().out == "before\nafter\n"


def test_standard_output_is_given_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"), captured_stdout():
        raise ValueError("no")
    print("after")
    assert capfd.readouterr().out == "after\n"
