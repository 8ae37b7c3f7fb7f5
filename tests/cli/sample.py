"""A small model and its data in files, as a user of the command line has them."""

from __future__ import annotations

from pathlib import Path

import numpy
import torch
from click.testing import CliRunner, Result

from quantfx.cli.program import program

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))

def net():
    return Net().eval(), (torch.randn(4, 3, 8, 8),), [torch.randn(4, 3, 8, 8)]

def broken():
    raise KeyError("weights")
"""


def write_sample(folder: Path) -> None:
    """Write ``own_cli.py`` with a model, its batches as files, and the model as ``net.pt2``."""
    (folder / "own_cli.py").write_text(OWN)
    held: dict[str, object] = {}
    exec(compile(OWN, "own_cli.py", "exec"), held)
    torch.manual_seed(0)
    model, example, _ = held["net"]()  # type: ignore[operator]  # of the text above
    torch.export.save(torch.export.export(model, example), folder / "net.pt2")
    numpy.savez(folder / "images.npz", torch.randn(8, 3, 8, 8).numpy())


def run(*arguments: str | Path) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(program, [str(each) for each in arguments], prog_name="quantfx")
