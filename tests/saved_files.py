"""Take files of results apart, and write changed ones."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.export import Dim

from tests.saved_models import ROWS, mlp, quantized

Edit = Callable[[dict[str, Any]], Any]


def small_file(path: Path) -> Path:
    """Save a small model with a free dimension."""
    quantized(mlp(), ROWS, dynamic_shapes=({0: Dim("b")},)).save(path)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path: Path, into: Path, member: str, edit: Edit) -> Path:
    """Write the file with one text changed by ``edit``; its sums are right."""
    parts = members(path)
    data = json.loads(parts[member])
    edit(data)
    return packed(into, parts | {member: json.dumps(data).encode()})


def packed(path: Path, parts: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path
