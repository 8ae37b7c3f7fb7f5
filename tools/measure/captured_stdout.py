"""Capture the standard output of a block of code, from C as well as from Python."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

_STDOUT = 1


@dataclass
class Captured:
    """The captured text, available after the block."""

    text: str = ""


@contextmanager
def captured_stdout() -> Generator[Captured, None, None]:
    """Redirect the file descriptor of standard output while the block runs."""
    captured = Captured()
    _flush()
    kept = os.dup(_STDOUT)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), _STDOUT)
        try:
            yield captured
        finally:
            _flush()
            os.dup2(kept, _STDOUT)
            os.close(kept)
            file.seek(0)
            captured.text = file.read().decode(errors="replace")


def _flush() -> None:
    sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)  # C has its own buffers
