"""Our lowering needs none of Inductor's q/dq patterns, which torch 2.13 is the last to have.

On 2.13 later versions are imitated: the function that registers the patterns does nothing. They
themselves have no patterns to compare with, so that only what is reached is looked at.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.backends.qdq_patterns import has_qdq_patterns

ROOT = Path(__file__).parents[3]
ADDED = "qconv2d_pointwise.binary"
ROUTES = ("onednn", "inductor") if has_qdq_patterns() else ("onednn",)


def run(route: str, folder: Path, networks: Iterable[str]) -> None:
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.backends.independence",
         route, folder, *networks],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


Folder = Callable[[Iterable[str], tuple[str, ...]], Path]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Return where the results of some networks lie: those of each route from one process."""

    @functools.cache
    def folder(networks: tuple[str, ...], routes: tuple[str, ...]) -> Path:
        path = tmp_path_factory.mktemp("networks")
        for route in routes:
            run(route, path, networks)
        return path

    return lambda networks, routes: folder(tuple(networks), routes)


def results(network: str, route: str, folder: Path) -> dict[str, Any]:
    written: dict[str, Any] = torch.load(folder / f"{network}-{route}.pt")
    return written


def check(network: str, folder: Path, kernels: dict[str, dict[str, int]]) -> None:
    ours = results(network, "onednn", folder)
    assert not ours["torchao"]
    assert ours["packed_by_patterns"] == 0
    assert {kind: ours["kernels"][kind] for kind in kernels} == kernels
    if not (folder / f"{network}-inductor.pt").exists():
        return
    theirs = results(network, "inductor", folder)
    assert theirs["packed_by_patterns"] > 0, "their route is what it says"
    for a, b in zip(ours["outputs"], theirs["outputs"], strict=True):
        if "bert" in network and a.dim() == 2:
            # Behind the pooler's tanh, which only our kernel computes: theirs is in a loop of its own.
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
        else:
            assert torch.equal(a, b)


SMALL = {
    "residual_block": {"conv2d": {"qconv_pointwise": 1, ADDED: 1}},
}
FULL = {
    **SMALL,
    "resnet18_small": {"conv2d": {"qconv_pointwise": 4, ADDED: 2}},
    "bert_small": {"linear": {"qlinear_pointwise": 5, "qlinear_pointwise.binary": 2}},
    "cat_pool_net": {"conv2d": {"qconv_pointwise": 3}, "linear": {"qlinear_pointwise": 1}},
    "resnet50": {
        "conv2d": {"qconv_pointwise": 37, ADDED: 16},
        "linear": {"qlinear_pointwise": 1},
    },
    "mobilenet_v2": {
        "conv2d": {"qconv_pointwise": 42, ADDED: 10},
        "linear": {"qlinear_pointwise": 1},
    },
    "bert": {"linear": {"qlinear_pointwise": 25, "qlinear_pointwise.binary": 12}},
}


# In CI test_compiled_2_13.py sees that no pattern of Inductor's matches what is lowered.
@pytest.mark.sweep
@pytest.mark.parametrize("network", SMALL)
def test_small_networks(network: str, compiled: Folder) -> None:
    check(network, compiled(SMALL, ("onednn",)), SMALL[network])


@pytest.mark.sweep
@pytest.mark.parametrize("network", FULL)
def test_full_networks(network: str, compiled: Folder) -> None:
    check(network, compiled(FULL, ROUTES), FULL[network])
