from __future__ import annotations

from syrupy.assertion import SnapshotAssertion

from quantfx.backends.x86 import pattern_set
from quantfx.patterns.dot import pattern_set_to_dot, template_to_dot
from quantfx.patterns.loader import load
from tests.snapshot import DotSnapshotExtension


def test_one_template(snapshot: SnapshotAssertion) -> None:
    text = template_to_dot(load("pt2e")["conv2d_add"])
    assert text == snapshot.use_extension(DotSnapshotExtension)


def test_the_gallery_shows_every_template() -> None:
    text = pattern_set_to_dot(pattern_set())
    for name in pattern_set().names:
        assert f'label="{name}"' in text
