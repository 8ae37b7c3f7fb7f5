"""Files that are written atomically, and opened with a clear error if that fails."""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from io import BufferedReader, BufferedWriter
from pathlib import Path

from quantfx.passes.errors import FileError


@contextmanager
def writing(path: Path) -> Generator[BufferedWriter]:
    """Yield a writer; readers of ``path`` find the old file or the complete new file.

    Raises:
        FileError: the folder is missing or not writable, or ``path`` is a folder.
    """
    target = Path(os.path.realpath(path))  # a link stays a link
    if target.is_dir():
        message = f"{path}: is a folder"
        raise FileError(message, rule="not-a-file", site=str(path), fix="name a file in it")
    if not target.parent.is_dir():
        message = f"{path}: there is no folder {target.parent}"
        raise FileError(message, rule="no-such-file", site=str(path), fix="create it first")
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with partial.open("xb") as file:
            yield file
        os.replace(partial, target)
    except OSError as error:
        message = f"{path}: cannot be written: {error.strerror or error}"
        raise FileError(message, rule="unwritable-file", site=str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def opened(path: Path, writer: str) -> BufferedReader:
    """Return the opened file.

    Args:
        path: Path of the file.
        writer: Name of the function that writes such files, for the fix.

    Raises:
        FileError: the file is missing or unreadable, or is a folder.
    """
    if path.is_dir():
        fix = f"name the file that {writer} wrote"
        raise FileError(f"{path}: is a folder", rule="not-a-file", site=str(path), fix=fix)
    try:
        return path.open("rb")
    except FileNotFoundError:
        message = f"{path}: there is no such file"
        raise FileError(message, rule="no-such-file", site=str(path)) from None
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}"
        raise FileError(message, rule="unreadable-file", site=str(path)) from None
