"""Fixtures of all tests."""

from __future__ import annotations

import pytest
from syrupy.assertion import SnapshotAssertion

from tests.snapshot import DotSnapshotExtension


@pytest.fixture
def graph_snapshot(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    """Compare a graph with its stored drawing: ``assert module == graph_snapshot(name="qdq")``."""
    return snapshot.use_extension(DotSnapshotExtension)
