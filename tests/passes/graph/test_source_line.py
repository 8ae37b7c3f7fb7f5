"""The line of the user's code is the innermost one that is not torch's or ours."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.fx import Graph

import quantfx
from quantfx.passes.graph.source_line import SourceLine, source_line

FRAME = '  File "{}", line {}, in forward\n    {}\n'


def test_the_innermost_frame_of_the_user() -> None:
    node = Graph().placeholder("x")
    assert source_line(node) is None
    ours = Path(quantfx.__file__).parent / "passes" / "export" / "watch_layout.py"
    torchs = Path(torch.__file__).parent / "nn" / "modules" / "conv.py"
    # A package whose name begins as torch's does.
    vision = f"{Path(torch.__file__).parent}vision/block.py"
    frames = [
        FRAME.format(ours, 64, "return original(*args)"),
        FRAME.format("/home/me/model.py", 9, "y = self.block(x)"),
        FRAME.format(vision, 4, "return self.conv(x)"),
        FRAME.format(torchs, 565, "return self._conv_forward(x)"),
        FRAME.format("<eval_with_key>.1", 6, "made = code"),
    ]
    node.meta["stack_trace"] = "".join(frames)
    expected = SourceLine(file=vision, line=4, function="forward", text="return self.conv(x)")
    assert source_line(node) == expected
    node.meta["stack_trace"] = frames[0] + frames[3]
    assert source_line(node) is None


def test_captured_nodes_have_it() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x)

    graph = quantfx.capture(Model().eval(), torch.randn(2))
    [relu] = [node for node in graph.graph.nodes if node.name == "relu"]
    line = source_line(relu)
    assert line is not None
    assert (line.file, line.text) == (__file__, "return torch.relu(x)")
