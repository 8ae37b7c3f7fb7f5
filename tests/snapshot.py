"""Snapshots of graphs: one small text file each, named so that every shell and system takes it."""

from __future__ import annotations

from pathlib import Path

from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode
from syrupy.location import PyTestLocation
from syrupy.types import PropertyFilter, PropertyMatcher, SerializableData, SerializedData
from torch.fx import GraphModule

from quantfx.passes.draw.plain import to_plain_dot

# syrupy's names hold pytest's parameters and its own `name=` in brackets: `test_x[a b][qdq]`.
_PLAIN = str.maketrans({"[": "-", "]": None, " ": "_"})


class DotSnapshotExtension(SingleFileSnapshotExtension):
    """Stores a graph module, or finished text, as ``test_name-parameter-stage.dot``."""

    _write_mode = WriteMode.TEXT
    file_extension = "dot"

    def serialize(
        self,
        data: SerializableData,
        *,
        exclude: PropertyFilter | None = None,
        include: PropertyFilter | None = None,
        matcher: PropertyMatcher | None = None,
    ) -> SerializedData:
        """Return the drawing of a graph module, or the text itself."""
        return to_plain_dot(data) if isinstance(data, GraphModule) else str(data)

    @classmethod
    def get_snapshot_name(cls, *, test_location: PyTestLocation, index: int | str = 0) -> str:
        """Return the stem of the file."""
        name = super().get_snapshot_name(test_location=test_location, index=index)
        return name.translate(_PLAIN)

    @classmethod
    def matches_test_location(
        cls, *, test_location: PyTestLocation, snapshot_location: str
    ) -> bool:
        """Whether a file belongs to a test, so that unused ones are found."""
        path = Path(snapshot_location)
        if path.suffix != ".dot" or path.parent.name != test_location.basename:
            return False
        own = test_location.snapshot_name.translate(_PLAIN)
        named = path.stem == own or path.stem.startswith((f"{own}-", f"{own}."))
        return named and test_location.matches_snapshot_site(snapshot_location)
