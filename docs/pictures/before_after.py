"""Draw README's picture: a network as captured, quantized and lowered. Needs Graphviz's `dot`.

python docs/pictures/before_after.py    # writes before_after.svg beside this file
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.fx import GraphModule

import quantfx

GAP, HEAD = 40.0, 30.0


def drawing(graph: GraphModule) -> tuple[str, float, float]:
    """Return a graph as an ``<svg>`` element with its width and height."""
    with tempfile.TemporaryDirectory() as folder:
        path = quantfx.draw(graph, Path(folder) / "graph.svg")
        text = path.read_text(encoding="utf-8")
    if not text.startswith("<?xml"):
        raise SystemExit("dot is not installed")
    text = text[text.index("<svg") :].replace("pt", "", 2)
    # Names of elements would stand twice in one picture.
    text = re.sub(r' id="[^"]*"|<!--.*?-->\n', "", text, flags=re.DOTALL)
    size = re.search(r'width="([\d.]+)" height="([\d.]+)"', text)
    assert size is not None
    return text, float(size[1]), float(size[2])


def main() -> None:
    """Quantize, draw, put the graphs side by side."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3600, 10))
    model = nn.Sequential(*layers).eval()
    x = torch.randn(8, 3, 32, 32)
    backend = quantfx.backends.get("x86", target="avx2", kernels="onednn")
    result = quantfx.quantize(model, (x,), calibration=[x], backend=backend)
    graphs = {
        "captured": quantfx.capture(model, (x,)),
        "quantized": result.quantized,
        "on kernels": result.module,
    }
    drawn = {title: drawing(graph) for title, graph in graphs.items()}
    height = HEAD + max(height for _, _, height in drawn.values())
    parts, left = [], 0.0
    for title, (text, width, _) in drawn.items():
        parts.append(f'<text x="{left + width / 2}" y="20">{title}</text>')
        parts.append(text.replace("<svg", f'<svg x="{left}" y="{HEAD}"', 1).strip())
        left += width + GAP
    total = left - GAP
    style = "text { font-family: Helvetica, Arial, sans-serif } .head > text { font-size: 15px }"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height}" width="{total}"'
    body = "\n".join(parts)
    path = Path(__file__).with_suffix(".svg")
    path.write_text(
        f'{head} height="{height}">\n<style>{style}</style>\n<rect width="100%" height="100%" '
        f'fill="white"/>\n<g class="head" text-anchor="middle">\n{body}\n</g>\n</svg>\n',
        encoding="utf-8",
    )
    print(path)


if __name__ == "__main__":
    main()
