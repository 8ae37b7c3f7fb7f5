"""A template of your own: with it, x86 reads the input of an ELU as int8.

It prints::

    float: no template takes it
    int8 by template elu: no kernel of its own, dq-op-q
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import quantfx
from quantfx.backends import Backend
from quantfx.passes import Annotate
from quantfx.patterns import lint, load

ELU = load(Path(__file__).with_suffix(".toml"))


def with_elu(backend: Backend) -> Backend:
    """Return a backend that knows the template as well, and annotates its group."""
    recipe = replace(backend.recipe, patterns=backend.recipe.patterns | ELU)
    pipeline = backend.prepare_pipeline.before("propagate", Annotate("elu"))
    return replace(backend, recipe=recipe, prepare_pipeline=pipeline)


if __name__ == "__main__":
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    model = nn.Sequential(nn.Linear(8, 16), nn.ELU(), nn.Linear(16, 4)).eval()
    assert lint(ELU) == ()
    for backend in (quantfx.backends.get("x86"), with_elu(quantfx.backends.get("x86"))):
        result = quantfx.quantize(model, (x,), calibration=[x], backend=backend)
        [elu] = result.explain("1")
        print(elu.verdict)
