"""An encoder of Hugging Face, int8 with the tokenizer's own batches: static, smoothed, and saved.

Weights are random here, so it needs no download; a model of ``from_pretrained`` is called the same
way. The model has three embedding tables. Two are read at fixed places only, so their rows are
computed once, and one table is left. Needs ``pip install transformers``.

It prints::

    13 linears and 1 table of int8
    the file answers as the model does
"""

import tempfile
from pathlib import Path

import torch
from transformers import BertConfig, BertModel  # pyright: ignore[reportMissingImports]

import quantfx


def batch(rows: int, length: int = 16) -> dict[str, torch.Tensor]:
    """Return what a tokenizer returns."""
    words = torch.randint(0, 100, (rows, length))
    return {"input_ids": words, "attention_mask": torch.ones_like(words)}


if __name__ == "__main__":
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
    )
    model = BertModel(shape).eval()
    batches = [batch(8) for _ in range(8)]
    backend = quantfx.backends.get("x86", smooth=0.7)  # transformers gain most by this
    result = quantfx.quantize(model, batches[0], calibration=batches, backend=backend)
    lowered = {row.label.split(",")[0]: row.lowered for row in result.report.rows}
    print(f"{lowered['linear']} linears and {lowered['embedding']} table of int8")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "encoder.quantfx"
        result.save(file)
        loaded = quantfx.load(file)
    with torch.no_grad():
        one, other = (each.module(**batches[1]) for each in (result, loaded))
    same = torch.equal(one.last_hidden_state, other["last_hidden_state"])
    print("the file answers as the model does" if same else "the file answers otherwise")
