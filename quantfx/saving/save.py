"""Save a result: its q/dq graph and everything needed to lower and compile it elsewhere."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.passes.errors import ConfigError, FileError
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.report.report import Report
from quantfx.patterns.errors import warn
from quantfx.saving.dynamic_shapes_text import encode_shapes
from quantfx.saving.file import FORMAT, Contents, version, write
from quantfx.saving.graph_text import GraphWriter
from quantfx.saving.inputs_text import encode_inputs
from quantfx.saving.origin import Origin


def save(
    path: Path,
    quantized: GraphModule,
    *,
    report: Report,
    backend: Backend,
    origin: Origin,
    inputs: ExampleInputs,
    input_values: bool,
) -> None:
    """Write a file for ``quantfx.load``; no argument is changed.

    Args:
        path: The file.
        quantized: The q/dq graph.
        report: Its report.
        backend: The backend that made it.
        origin: The versions and pipelines that made it.
        inputs: The inputs that the model was captured with.
        input_values: Whether to keep the values of the example inputs, or their form only.

    Raises:
        FileError: something cannot be stored in files, or the file cannot be written.
    """
    try:
        writer = GraphWriter()
        graph = writer.encode(quantized)
        encoded, tensors = encode_inputs(inputs.args, inputs.kwargs, values=input_values)
        shapes = encode_shapes(quantized, inputs)
    except FileError as error:
        raise error.within(str(path), FileError) from None
    header = {
        "format": FORMAT,
        "quantfx": version(),
        "torch": torch.__version__,
        "backend": backend.name,
        "variant": _is_variant(backend),
        "config": _config(backend),
        "origin": origin.to_dict(),
        "report": report.to_dict(),
        "inputs": encoded,
        "dynamic_shapes": shapes,
    }
    write(path, Contents(header, graph, _compact(writer.tensors | tensors)))


def _config(backend: Backend) -> str | None:
    try:
        return backend.recipe.config.to_json()
    except ConfigError as error:
        warn(
            f"the file lacks the config ({error}); its decisions are in the graph and the report",
            rule="no-text-form",
            site="config",
            stacklevel=4,
        )
        return None


def _is_variant(backend: Backend) -> bool:
    """Whether the graph needs another backend than the builtin backend of that name."""
    if backend.name not in backends.NAMES:
        return True
    builtin = backends.get(backend.name, target=backend.target_name)
    return _lowers(backend) != _lowers(builtin)


def _lowers(backend: Backend) -> tuple[object, ...]:
    return backend.recipe.patterns.digest, repr(backend.lower_pipeline), repr(backend.kernels)


def _compact(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors to store: plain, on the CPU, and none a view of a larger tensor.

    torch would store a view with all the memory that it views.
    """
    plain = {key: value.detach().cpu() for key, value in tensors.items()}
    return {
        key: value.clone()
        if value.untyped_storage().nbytes() > value.numel() * value.element_size()
        else value
        for key, value in plain.items()
    }
