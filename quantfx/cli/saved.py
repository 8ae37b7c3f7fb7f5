"""FILE of the command line: a saved model that is looked at and not run on kernels."""

from __future__ import annotations

from pathlib import Path

from quantfx.load_result import load
from quantfx.result import Result


def load_to_read(file: Path) -> Result:
    """Return a saved result, also one made for a better CPU: a warning says what would saturate.

    Args:
        file: Written by ``Result.save``.

    Raises:
        FileError: it is no such file, damaged, or of another version.
    """
    return load(file, strict=False)
