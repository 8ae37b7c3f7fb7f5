"""Ahead of time: a library of the int8 model, which another process runs without quantfx.

It prints::

    same, without quantfx
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

import quantfx

# C++ loads the same file by torch::inductor::AOTIModelPackageLoader.
RUN = """
import sys, torch

run = torch._inductor.aoti_load_package(sys.argv[1])
x, expected = torch.load(sys.argv[2])
same, without = torch.equal(run(x), expected), "quantfx" not in sys.modules
print("same" if same else "other", "without quantfx" if without else "with it", sep=", ")
"""

if __name__ == "__main__":
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    x = torch.randn(2, 3, 8, 8)
    result = quantfx.quantize(model, (x,), calibration=[x])
    with tempfile.TemporaryDirectory() as folder:
        package, data = Path(folder) / "net.pt2", Path(folder) / "data.pt"
        library = result.compile(wrapper="aot", package=package)
        torch.save((x, library(x)), data)
        subprocess.run([sys.executable, "-c", RUN, str(package), str(data)], check=True)
