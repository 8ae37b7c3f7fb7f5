"""An int8 model in a C++ program: compiled ahead of time, loaded by torch's own loader.

``main.cpp`` beside this file is the program. It is linked with the libraries of torch, as any
program is that uses libtorch, and takes the package that ``compile`` wrote. Needs a C++ compiler.

It prints::

    Python and C++ agree
"""

import subprocess
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.utils import cpp_extension

import quantfx

MAIN = Path(__file__).parent / "main.cpp"


def build(program: Path) -> None:
    """Compile ``main.cpp``."""
    libraries = cpp_extension.library_paths()
    command = ["g++", "-std=c++20", str(MAIN), "-o", str(program)]
    command += [f"-I{path}" for path in cpp_extension.include_paths()]
    command += [f"-L{path}" for path in libraries] + [f"-Wl,-rpath,{path}" for path in libraries]
    subprocess.run([*command, "-ltorch", "-ltorch_cpu", "-lc10"], check=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    example = (torch.randn(1, 3, 8, 8),)
    result = quantfx.quantize(model, example, calibration=[example])
    with tempfile.TemporaryDirectory() as folder:
        package, program = Path(folder) / "net.pt2", Path(folder) / "main"
        library = result.compile(wrapper="aot", package=package)
        build(program)
        said = subprocess.run([program, package], check=True, capture_output=True, text=True).stdout
        same = int(said) == int(library(torch.ones(1, 3, 8, 8)).argmax())
        print("Python and C++", "agree" if same else "differ")
