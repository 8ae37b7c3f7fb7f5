from __future__ import annotations

from pathlib import Path

import pytest

from quantfx.tools.bench.engine import EngineError
from quantfx.tools.bench.engines import BASELINE
from quantfx.tools.bench.process import ProcessWorker
from quantfx.tools.bench.workload import WorkloadError
from tests.refusals import refused

OWN = """
import os
import torch

def raises(): raise ValueError("no network")

class Dies(torch.nn.Module):
    def forward(self, x):
        print("a last word", flush=True)
        os._exit(3)

def dies(): return Dies().eval(), (torch.randn(1),), [torch.randn(1)]
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_process.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.sweep  # what loads it is tested in test_workload.py, and that errors arrive below
def test_a_model_that_cannot_be_loaded_is_no_matter_of_the_engine() -> None:
    with refused("foreign-code", WorkloadError, site="own_process:raises", says="ValueError"):
        ProcessWorker(BASELINE, "own_process:raises", 1, 1)


def test_a_process_that_dies_is_an_error_with_its_last_words() -> None:
    worker = ProcessWorker(BASELINE, "own_process:dies", 1, 1)
    try:
        with refused("process-ended", EngineError, says="3: a"):
            worker.build()
        with refused("process-ended", EngineError, says="code 3"):
            worker.turn(1)
    finally:
        worker.close()
        worker.close()
