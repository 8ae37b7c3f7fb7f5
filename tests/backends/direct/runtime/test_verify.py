"""What is tried before oneDNN is trusted: nothing is wrong here, and what is would be found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from quantfx.backends.direct.runtime import library, verify
from quantfx.backends.direct.runtime.library import runtime
from quantfx.backends.direct.runtime.plan import Plan


def test_nothing_is_wrong_here() -> None:
    found = runtime().library
    assert found is not None
    assert verify.first_fault(found) == ""


@pytest.mark.parametrize(
    ("kind", "inputs", "said"),
    [
        ("convolution", 2, "a convolution"),
        ("matmul", 1, "a product of 1 x"),
        ("matmul", 2, "a product of two activations"),
    ],
)
def test_what_is_off_is_found(
    monkeypatch: pytest.MonkeyPatch, kind: str, inputs: int, said: str
) -> None:
    run, count = Plan.run, inputs

    def wrong(self: Plan, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        outputs = run(self, inputs)
        if self.program.steps[-1].kernel == f"direct.{kind}" and len(inputs) == count:
            outputs[0] = (outputs[0].int() ^ 2).to(torch.uint8)
        return outputs

    monkeypatch.setattr(Plan, "run", wrong)
    found = runtime().library
    assert found is not None
    assert verify.first_fault(found).startswith(said)


def test_what_was_found_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = runtime().library
    assert found is not None
    monkeypatch.setattr(verify, "first_fault", lambda library: "a convolution of a kind")
    for _ in range(2):
        reason = library._fault(found, tmp_path / "direct.so")
        assert reason == "oneDNN computes wrongly on this CPU: a convolution of a kind"
        monkeypatch.setattr(verify, "first_fault", lambda library: "")
