"""A file of plain data: a line that names the format, a header in JSON, and bytes of tensors.

=====================  =========================================================================
``quantfx statistics``  and a line feed
8 bytes                length of the header, little-endian
the header             JSON: ``format``, what the caller gave, and ``tensors``: where each is
the tensors            bytes, one after the other; counts are packed by zlib
=====================  =========================================================================

Nothing in it is executed: no pickle, no names of classes.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from quantfx.passes.errors import FileError
from quantfx.passes.observers.statistics.digests import raw_bytes
from quantfx.passes.observers.statistics.whole_file import opened, writing

FORMAT = 3
# Errors from reading a file that ``write`` did not write; a header may be nested too deeply.
_DAMAGED = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    RecursionError,
    zlib.error,
)
_MAGIC = b"quantfx statistics\n"
_NUMBERS = "float64 float32 float16 bfloat16 complex128 complex64 int64 int32 int16 int8 uint8 bool"
_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in _NUMBERS.split()}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_PACKED = "counts"  # mostly zeros; other tensors do not compress


def write(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a file atomically: readers of ``path`` find the old file or the complete new file.

    Raises:
        FileError: the folder is missing or not writable, or ``path`` is a folder.
    """
    places: dict[str, Any] = {}
    bodies: list[bytes] = []
    start = 0
    for key, value in tensors.items():
        body = raw_bytes(value)
        packed = key.endswith(_PACKED)
        if packed:
            body = zlib.compress(body, 1)
        place = {"dtype": _NAMES[value.dtype], "shape": list(value.shape), "packed": packed}
        places[key] = place | {"start": start, "length": len(body), "crc": zlib.crc32(body)}
        bodies.append(body)
        start += len(body)
    text = json.dumps({"format": FORMAT, **header, "tensors": places}, allow_nan=False).encode()
    with writing(path) as file:
        file.writelines((_MAGIC, len(text).to_bytes(8, "little"), text, *bodies))


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the header and the tensors of a file, after checking that it is complete.

    Raises:
        FileError: it is not complete, or quantfx did not write it.
    """
    with opened(path, "Statistics.save") as file:
        content = memoryview(file.read())
    head = len(_MAGIC) + 8
    if bytes(content[: len(_MAGIC)]) != _MAGIC:
        told = "has another form" if content else "is empty"
        message = f"{path}: the file {told}, and Statistics.save did not write it"
        fix = "give a file that Statistics.save wrote"
        raise FileError(message, rule="foreign-file", site=str(path), fix=fix)
    body = head + int.from_bytes(content[len(_MAGIC) : head], "little")
    try:
        header = cast(dict[str, Any], json.loads(bytes(content[head:body])))
        version = header["format"]
        if version == FORMAT:
            places = cast(dict[str, dict[str, Any]], header["tensors"])
            rest = content[body:]
            return header, {key: _tensor(rest, place) for key, place in places.items()}
    except _DAMAGED as error:
        raise FileError.damaged(path, error) from error
    message = f"{path}: the file has format {version}, and this quantfx reads format {FORMAT}"
    fix = "load it with the quantfx that wrote it, or collect the statistics again"
    raise FileError(message, rule="file-version", site=str(path), fix=fix)


def _tensor(content: memoryview, place: Mapping[str, Any]) -> Tensor:
    dtype, shape = _DTYPES[place["dtype"]], tuple(map(int, place["shape"]))
    start, length = int(place["start"]), int(place["length"])
    size = math.prod(shape) * dtype.itemsize
    body = content[start : start + length]
    if min(start, length, *shape, 0) < 0 or len(body) != length:
        raise ValueError("a tensor lies outside the file")
    if zlib.crc32(body) != place["crc"]:
        raise ValueError("the bytes of a tensor have changed")
    plain: bytes | memoryview = body
    if place["packed"]:
        plain = zlib.decompressobj().decompress(body, size + 1)
    if len(plain) != size:
        raise ValueError("the size of a tensor does not match its shape")
    if not size:
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(bytearray(plain), dtype=dtype).reshape(shape)
