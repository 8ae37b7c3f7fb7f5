"""The file format of results: a zip archive of two texts and a file of tensors.

===============  ===================================================================
``quantfx.json``  the header: who wrote it and how, config, report, example inputs
``graph.json``    the q/dq graph
``tensors.pt``    its tensors, by ``torch.save``; read with ``weights_only``
===============  ===================================================================

This is not ``torch.export.save``: in torch 2.13, reading such a file evaluates text in it as Python
(its sizes, by sympy), imports modules that it names, and falls back to full unpickling. It also
keeps neither the names of nodes nor what a graph writes to.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from torch import Tensor

from quantfx.passes.errors import FileError
from quantfx.passes.observers.statistics.whole_file import opened, writing

FORMAT = 5
_HEADER, _GRAPH, _TENSORS = "quantfx.json", "graph.json", "tensors.pt"
_FIELDS = ("backend", "variant", "config", "origin", "report", "inputs", "dynamic_shapes")
# Exceptions that reading a damaged archive may raise.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError,
    KeyError, ValueError,
)  # fmt: skip


@dataclass(frozen=True)
class Contents:
    """The contents of a file.

    Attributes:
        header: Plain data.
        graph: Plain data.
        tensors: Tensors by key.
    """

    header: dict[str, Any]
    graph: dict[str, Any]
    tensors: dict[str, Tensor]


def write(path: Path, contents: Contents) -> None:
    """Write a file atomically: readers of ``path`` find the old file or the whole new file.

    Raises:
        FileError: the folder does not exist or cannot be written to, or ``path`` is a folder.
    """
    with writing(path) as file:
        _write(file, contents)


def _write(file: io.BufferedWriter, contents: Contents) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in ((_HEADER, contents.header), (_GRAPH, contents.graph)):
            member = zipfile.ZipInfo(name)  # without a time, so that equal results give equal files
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, json.dumps(data, allow_nan=False))
        with archive.open(zipfile.ZipInfo(_TENSORS), "w", force_zip64=True) as stream:
            torch.save(contents.tensors, stream)


def read(path: Path) -> Contents:
    """Return the contents of a file, after checking that it is whole and of a known format.

    Raises:
        FileError: it is not; says what the file is, if known.
    """
    with opened(path, "Result.save") as file:
        start = file.read(2)
        if start != b"PK":
            what = "has no quantfx file format" if start else "is empty"
            message = f"{path}: the file {what}, and Result.save did not write it"
            raise FileError(message, rule="foreign-file", site=str(path))
        return _read(path, file)


def _read(path: Path, file: io.BufferedReader) -> Contents:
    try:
        with zipfile.ZipFile(file) as archive:
            header = _header(path, archive)
            graph: dict[str, Any] = json.loads(archive.read(_GRAPH))
            # Read whole, which checks its checksum; torch then reads the checked bytes.
            tensors = io.BytesIO(archive.read(_TENSORS))
        return Contents(header, graph, _tensors(path, tensors))
    except _DAMAGE as error:
        raise FileError.damaged(path, error) from error


def _header(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    names = archive.namelist()
    if _HEADER not in names:
        raise _foreign(path, names)
    header: object = json.loads(archive.read(_HEADER))
    if not isinstance(header, dict) or "format" not in header:
        raise FileError.damaged(path, "its header says nothing")
    found = cast(dict[str, Any], header)
    if found["format"] != FORMAT:
        raise FileError(
            f"{path}: quantfx {found.get('quantfx')} wrote it in format {found['format']}, and "
            f"quantfx {version()} reads format {FORMAT}.",
            rule="file-version",
            site=str(path),
            fix=(
                "load it with the quantfx that wrote it, or quantize and save the model with this "
                "one"
            ),
        )
    if missing := [field for field in _FIELDS if field not in found]:
        raise FileError.damaged(path, f"its header has no {missing[0]}")
    return found


def _foreign(path: Path, names: list[str]) -> FileError:
    leaves = {name.rpartition("/")[2] for name in names}
    if "archive_format" in leaves:
        found, fix = "torch.export.save or AOTInductor wrote the file", "load it with torch"
    elif "data.pkl" in leaves:
        found, fix = "torch.save wrote the file", "load it with torch"
    else:
        found, fix = "the file is an archive", "give a file that Result.save wrote"
    message = f"{path}: {found}, and Result.save did not write it"
    return FileError(message, rule="foreign-file", site=str(path), fix=fix)


def _tensors(path: Path, stream: io.BytesIO) -> dict[str, Tensor]:
    try:
        loaded: object = torch.load(stream, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise FileError(
            f"{path}: the file holds something else than tensors where only tensors belong "
            f"({str(error).splitlines()[0]}); it was not loaded.",
            rule="hostile-file",
            site=str(path),
            fix="do not trust where it comes from",
        ) from None
    tensors = cast(dict[object, object], loaded) if isinstance(loaded, dict) else {None: None}
    for key, value in tensors.items():
        if not isinstance(key, str) or type(value) is not Tensor:
            raise FileError.damaged(path, "its tensors are not a table of tensors")
    return cast(dict[str, Tensor], tensors)


def version() -> str:
    """Return the version of quantfx."""
    import quantfx  # which imports this module

    return quantfx.__version__
