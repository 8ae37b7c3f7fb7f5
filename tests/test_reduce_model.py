"""``quantfx.reduce``: a fault in few operators, in a file that shows it in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from torch import Tensor, nn

import quantfx
from quantfx import Pipeline, backends
from quantfx.checks import Check, close_to_float, runs
from quantfx.passes.errors import BisectError, PassError
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from tests import seeded_faults as faults
from tests.refusals import refused

ROOT = Path(__file__).parent.parent
Network = Callable[[], tuple[nn.Module, Tensor]]

# How each is seeded, by the code that a process of its own runs as well.
FAULTS: dict[str, tuple[Network, str, Check]] = {
    "a lost eps": (faults.conv_net, "lose_eps(patch)", close_to_float(20)),
    "swapped scales": (faults.conv_net, "swap_scales(patch, 'linear')", close_to_float(20)),
    "a wrong kernel": (faults.attention, "break_kernel(patch, 'linear_3')", close_to_float(35)),
    "a pass that raises": (faults.attention, "raise_for_site(patch, 'linear_7')", runs()),
}
RUN = """
import runpy, sys
import pytest
from tests.seeded_faults import *

patch = pytest.MonkeyPatch()
{seed}
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def run_file(path: Path, seed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN.format(seed=seed), str(path)],
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", FAULTS)
def test_few_operators_are_left_and_the_file_shows_the_fault(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, seed, check = FAULTS[name]
    exec(f"faults.{seed}", {"faults": faults, "patch": monkeypatch})
    model, x = network()
    made = quantfx.reduce(model, x, check=check, path=tmp_path / "fault.py")
    assert 1 <= len(made.operators) <= 2
    shown = run_file(made.path, seed)
    assert shown.returncode == 1, shown.stderr
    assert made.message in shown.stdout
    gone = run_file(made.path)
    assert gone.returncode == 0, gone.stderr
    assert "the fault is gone" in gone.stdout


def test_what_a_bisection_found_is_where_it_looks_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.lose_eps(monkeypatch)
    model, x = faults.conv_net()
    check = close_to_float(20)
    found = quantfx.bisect(model, x, check=check, batches=[x])
    near = quantfx.reduce(model, x, check=check, path=tmp_path / "near.py", near=found)
    anywhere = quantfx.reduce(model, x, check=check, path=tmp_path / "anywhere.py")
    assert near.operators == anywhere.operators == ("conv2d_2", "batch_norm_2")
    assert near.evaluations < anywhere.evaluations


def test_tensors_that_the_fault_depends_on_are_saved_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.break_kernel(monkeypatch, "conv2d_1")
    model, x = faults.conv_net()
    made = quantfx.reduce(model, x, check=ExactWeight(), path=tmp_path / "fault.py")
    assert made.path.with_suffix(".pt").exists()
    assert 'saved["body_0_weight"]' in made.path.read_text().replace("'", '"')
    shown = run_file(made.path, "break_kernel(patch, 'conv2d_1')")
    assert shown.returncode == 1, shown.stderr


@dataclass(frozen=True)
class ExactWeight(Check):
    """Fails where a graph holds one certain weight of the convolutional network."""

    def holds(
        self,
        result: quantfx.Result,
        reference: Callable[..., object],
        *args: object,
        **kwargs: object,
    ) -> bool:
        model, _ = faults.conv_net()
        wanted = float(model.get_parameter("body.0.weight").sum())
        assert isinstance(reference, nn.Module)
        return all(abs(float(each.sum()) - wanted) > 1e-6 for each in held(reference))


def held(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


@dataclass(frozen=True)
class Refuse(GraphPass):
    """Leaves an invalid graph where two multiplications follow each other."""

    name: ClassVar[str] = "refuse"

    def rewrite(self, editor: Editor, context: Context) -> int:
        for node in editor.graph.find_nodes(op="call_function"):
            if node.name == "linear_3":
                raise ValueError("a fault")
        return 0


def test_the_error_of_a_pipeline_offers_the_file(tmp_path: Path) -> None:
    model, x = faults.attention()
    graph = quantfx.capture(model, x)
    backend = backends.get("x86")
    pipeline = backend.prepare_pipeline.upto("fold-scales") + Pipeline((Refuse(),))
    with pytest.raises(PassError) as caught:
        pipeline.run(graph, backend.context)
    assert "quantfx.reduce(error" in "".join(caught.value.__notes__)
    made = quantfx.reduce(caught.value, path=tmp_path / "fault.py")
    assert made.operators == ("linear_3",)
    assert "Pipeline.parse(PIPELINE, passes=[Refuse])" in made.path.read_text()
    shown = run_file(made.path)
    assert shown.returncode == 1, shown.stderr
    assert "refuse failed: a fault" in shown.stdout


def test_the_error_of_a_pass_of_ours_does_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.raise_in_pass(monkeypatch)
    model, x = faults.attention()
    with pytest.raises(PassError) as caught:
        quantfx.quantize(model, x, calibration=[x])
    made = quantfx.reduce(caught.value, path=tmp_path / "fault.py")
    assert len(made.operators) == 1
    assert run_file(made.path, "raise_in_pass(patch)").returncode == 1
    assert run_file(made.path).returncode == 0


def test_nothing_wrong_is_told(tmp_path: Path) -> None:
    model, x = faults.conv_net()
    with refused("nothing-wrong", BisectError):
        quantfx.reduce(model, x, path=tmp_path / "fault.py")
    assert not (tmp_path / "fault.py").exists()


def test_a_check_that_no_file_can_import_is_refused(tmp_path: Path) -> None:
    model, x = faults.conv_net()
    with refused("no-text-form", BisectError):
        quantfx.reduce(model, x, check=lambda _: False, path=tmp_path / "fault.py")


def test_an_error_of_which_nothing_is_kept_is_refused(tmp_path: Path) -> None:
    with refused("not-captured", BisectError):
        quantfx.reduce(PassError("lost", rule="pass-failed"), path=tmp_path / "fault.py")
