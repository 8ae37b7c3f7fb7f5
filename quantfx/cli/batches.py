"""DATA of the command line: batches in a file, or in a folder of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantfx.passes.errors import CalibrationError, FileError
from quantfx.passes.inputs.leaves import leaves_in, map_leaves


def read_batches(data: Path, rows: int | None = None) -> Iterator[Any]:
    """Yield the batches of a file, or of the files of a folder in the order of their names.

    One file is held in memory at a time. Nothing in it is unpickled.

    Args:
        data: A file or a folder.
        rows: Cut each batch into batches of so many rows; None leaves it as it is.

    Raises:
        FileError: the file does not exist, cannot be read, or is of another kind.
        CalibrationError: a file holds something other than batches.
    """
    for file in _files(data):
        for batch in _read(file):
            yield from [batch] if rows is None else _cut(file, batch, rows)


def first_batch(data: Path, rows: int | None = None) -> Any:
    """Return the first batch of DATA as ``read_batches`` reads it.

    Raises:
        CalibrationError: there is none.
    """
    for batch in read_batches(data, rows):
        return batch
    raise CalibrationError(f"{data} holds no batch", rule="no-batches", site=str(data))


def _files(data: Path) -> list[Path]:
    kinds = ", ".join(_READERS)
    if not data.exists():
        message = f"{data}: there is no such file or folder"
        raise FileError(message, rule="no-such-file", site=str(data))
    if data.is_dir():
        found = sorted(file for file in data.iterdir() if file.suffix in _READERS)
        if not found:
            message = f"{data}: no file in the folder ends with {kinds}"
            raise FileError(message, rule="no-such-file", site=str(data))
        return found
    if data.suffix not in _READERS:
        message = f"'{data}' does not end with {kinds}"
        raise FileError(message, rule="file-ending", site=str(data))
    return [data]


def _read(file: Path) -> list[Any]:
    try:
        return _READERS[file.suffix](file)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        message = f"{file}: reading {file.suffix} needs the package '{package}'"
        fix = f"pip install {package}"
        raise FileError(message, rule="missing-package", site=package, fix=fix) from error
    except CalibrationError:
        raise
    except Exception as error:  # each library raises its own kinds for a file that it cannot read
        told = f"{error}".partition("\n")[0] or type(error).__name__
        message = f"{file}: cannot be read without running its code, or is damaged: {told}"
        raise FileError(message, rule="unreadable-file", site=str(file)) from error


def _npy(file: Path) -> list[Any]:
    import numpy  # nothing else in the library needs it

    return [torch.from_numpy(numpy.load(file, allow_pickle=False))]


def _npz(file: Path) -> list[Any]:
    import numpy  # nothing else in the library needs it

    with numpy.load(file, allow_pickle=False) as arrays:
        return [_arguments({name: torch.from_numpy(arrays[name]) for name in arrays.files})]


def _safetensors(file: Path) -> list[Any]:
    from safetensors.torch import load_file  # only for such files

    return [_arguments(load_file(file))]


def _pt(file: Path) -> list[Any]:
    held = torch.load(file, weights_only=True, map_location="cpu")
    batches = held if isinstance(held, list) else [held]
    for batch in batches:
        if not isinstance(batch, (Tensor, tuple, Mapping)):
            raise CalibrationError(
                f"{file} holds a {type(batch).__name__} for a batch",
                rule="calibration-form",
                site=str(file),
                fix="save a tensor, a tuple or a dict of arguments, or a list of these",
            )
    return batches


_READERS: dict[str, Callable[[Path], list[Any]]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _pt,
    ".safetensors": _safetensors,
}


def _arguments(tensors: Mapping[str, Tensor]) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
    """Return named tensors as a batch: a single one, arr_0, arr_1, ... in order, or a dict."""
    if len(tensors) == 1:
        return next(iter(tensors.values()))
    numbered = [f"arr_{place}" for place in range(len(tensors))]  # as numpy.savez calls them
    if set(numbered) == set(tensors):
        return tuple(tensors[name] for name in numbered)
    return dict(tensors)


def _cut(file: Path, batch: Any, rows: int) -> Iterator[Any]:
    tensors = [each for each in leaves_in(batch) if isinstance(each, Tensor)]
    counts = {len(each) if each.ndim else 0 for each in tensors}
    if len(counts) != 1 or 0 in counts:
        sizes = ", ".join(str(tuple(each.shape)) for each in tensors) or "no tensor"
        raise CalibrationError(
            f"{file}: --rows {rows} cannot cut a batch of tensors of shapes {sizes}",
            rule="calibration-form",
            site=str(file),
            fix="leave out --rows",
        )
    (count,) = counts
    for start in range(0, count, rows):
        yield map_leaves(partial(_rows, start=start, count=rows), batch)


def _rows(leaf: Any, start: int, count: int) -> Any:
    return leaf[start : start + count] if isinstance(leaf, Tensor) else leaf
