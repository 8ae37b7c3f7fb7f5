"""An int8 library compiled ahead of time runs where quantfx is not, to the bit."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch import Tensor, nn
from torch.export import Dim

import quantfx
from quantfx.backends.inductor.ahead_of_time import AheadOfTimeModule
from quantfx.tools.models.seeded import seeded
from tests.saved_models import IMAGE, quantized

WITHOUT_QUANTFX = """
import sys, torch

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "quantfx":
            raise ImportError(name)

sys.meta_path.insert(0, Block())
run = torch._inductor.aoti_load_package(sys.argv[1])
for x, expected in torch.load(sys.argv[2]):
    assert torch.equal(run(x), expected), x.shape
assert not [name for name in sys.modules if name.partition(".")[0] == "quantfx"]
print("same")
"""


# As AOTInductor's C++ spells the kernels.
ENTRIES = {
    "aoti_torch_cpu__qconv_pointwise_tensor(": "qconv_pointwise",
    "aoti_torch_cpu__qconv2d_pointwise_binary_tensor(": "qconv2d_pointwise.binary",
    "aoti_torch_cpu__qlinear_pointwise_tensor(": "qlinear_pointwise",
}


class Small(nn.Module):
    """A convolution with a sum and its activation, a pool and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        y = (self.second(y) + y).relu()
        logits: Tensor = self.head(y.mean((2, 3)))
        return logits


def assert_runs_without_quantfx(
    folder: Path, model: nn.Module, x: Tensor, shapes: Any, batches: tuple[int, ...]
) -> None:
    """Save, load, compile with the same results as Python code's, run in a process without quantfx."""
    package, expected = folder / "model.pt2", folder / "expected.pt"
    quantized(model, x, dynamic_shapes=shapes).save(folder / "model.quantfx")
    result = quantfx.load(folder / "model.quantfx")
    compiled = result.compile(wrapper="aot", package=package)
    assert isinstance(compiled, AheadOfTimeModule)
    assert compiled.package == package
    assert result.report.compiled == result.report.planned
    assert [call.kernel for call in compiled.kernels] == list(ENTRIES.values())
    assert calls(package) == set(ENTRIES.values())
    assert not torch._inductor.config.freezing
    inputs = [x[:1].expand(size, *x.shape[1:]) + size for size in batches]
    torch.save([(each, compiled(each)) for each in inputs], expected)
    python = result.compile()
    for each in inputs:
        assert torch.equal(compiled(each), python(each))
        torch.testing.assert_close(compiled(each), result.module(each), rtol=0, atol=0.02)
    command = [sys.executable, "-c", WITHOUT_QUANTFX, str(package), str(expected)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.stdout == "same\n", done.stderr


# Half a minute of C++; tests/backends/inductor/test_ahead_of_time.py has such a library in CI.
@pytest.mark.sweep
def test_of_any_batch(tmp_path: Path) -> None:
    free = ({0: Dim("batch", min=1, max=64)},)
    assert_runs_without_quantfx(tmp_path, seeded(Small), IMAGE, free, (2, 1, 5))


@pytest.mark.sweep
def test_of_one_batch(tmp_path: Path) -> None:
    assert_runs_without_quantfx(tmp_path, seeded(Small), IMAGE, None, (2,))


def calls(package: Path) -> set[str]:
    """Return which of oneDNN's int8 kernels the C++ in a package calls."""
    with zipfile.ZipFile(package) as archive:
        names = [name for name in archive.namelist() if name.endswith("wrapper.cpp")]
        source = "".join(archive.read(name).decode() for name in names)
    return {kernel for entry, kernel in ENTRIES.items() if entry in source}
