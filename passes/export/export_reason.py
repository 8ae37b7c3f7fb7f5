"""Why torch.export rejects a model, in torch's words, and what to write instead."""

from __future__ import annotations

import inspect
import linecache
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from quantfx.passes.errors import CaptureError
from quantfx.passes.inputs.leaves import Inputs
from quantfx.passes.model.input_copies import copy_inputs
from quantfx.passes.model.packed_sequence import packed_refusal
from quantfx.passes.model.state import restored

# Parts of torch's reasons for developers of torch: its logs, its source, its other tools.
_NOISE = re.compile(
    r"(! |\. )?For (more|extended) (information|logs|debugging help)[^\n]*"
    r"|If you suspect the guard was triggered from C\+\+[^\n]*"
    r"|For C\+\+ stack trace[^\n]*"
    r"|The error above occurred when calling torch\.export[^\n]*"
    r"|Caused by: \([^\n]*\)"
    r"|consider using data-dependent friendly APIs[^\n]*"
    r"| \(unhinted: [^\n]*?\)\.(?=\s|$)|  \(Size-like symbols: [^\n]*\)"
    r"|The following call raised this error:(\n  [^\n]*)+"  # quantfx's own call, which watches it
    r"| See https://github\.com/pytorch/functorch\S*[^\n]*"
)
_ON_DATA = re.compile(
    r"data-dependent|DataDependent|on values of|extract specialized integer", re.IGNORECASE
)
_ON_SHAPES = re.compile(r"Constraints violated|dynamic_shapes|dynamic dim", re.IGNORECASE)
_PYTHON = str(Path(linecache.__file__).parent)
_TORCH = str(Path(torch.__file__).parent)
_OURS = str(Path(__file__).parent)
_FLAG = "is_causal"
_AUTO = (
    "quantfx.auto(model) quantizes such a model part by part, without export, and so does "
    'torch.compile(model, backend="quantfx_x86")'
)


def export_reason(error: Exception) -> str:
    """Return torch's full reason with its suggested fixes, but without hints at its logs."""
    text = _NOISE.sub("", str(error))
    lines = [line.rstrip() for line in text.strip().splitlines()]
    kept = [line for line in lines if line]
    first = [f"{type(error).__name__}: {kept[0]}", *kept[1:]] if kept else [repr(error)]
    return "\n".join((*first, *_place(error)))


def _place(error: Exception) -> list[str]:
    """Return the last line of the model's own code in the traceback, if there is one."""
    found: list[str] = []
    exporting = False
    for frame, line in walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        exporting |= file.startswith(_TORCH)
        if exporting and _is_models(file):
            code = linecache.getline(file, line).strip()
            found = [f"at {file}:{line}, in {frame.f_code.co_name}: {code}"]
    return found


def _is_models(file: str) -> bool:
    of_python = file.startswith(_PYTHON) and "-packages" not in file
    return not (of_python or file.startswith((_TORCH, _OURS, "<")))


@contextmanager
def advised(model: nn.Module, inputs: Inputs) -> Generator[None]:
    """Add what to write instead to a refusal of torch.export.

    Args:
        model: The model to export.
        inputs: The inputs; on a refusal the model is called with copies, to learn whether it runs.
    """
    try:
        yield
    except CaptureError as error:
        cause = error.__cause__
        if not isinstance(cause, Exception):
            raise
        if packed := packed_refusal(model, cause):
            raise packed from cause
        advice = _advice(cause, model, inputs)
        raise CaptureError(
            "\n".join((error.message, *advice)), rule=error.rule, site=type(model).__name__
        ) from cause


def _advice(cause: Exception, model: nn.Module, inputs: Inputs) -> list[str]:
    text = f"{type(cause).__name__}: {cause}"
    if _ON_SHAPES.search(text):
        return []  # torch already names the dimension and the fix
    if "tree_name" in text and (named := _any_keywords(model)):  # torch 2.13's sign of it
        return [
            f"torch.export leaves no size free in a model that takes **{named}: give the model a "
            "named argument for each"
        ]
    own = _find_own_error(model, inputs)
    if own is not None:
        return [f"{type(model).__name__} itself fails on these inputs: {own}"]
    advice: list[str] = []
    if _ON_DATA.search(text):
        advice.append(
            "The model branches on values in tensors, but a graph has only one path"
            f"{_name_causal_flags(cause)}"
        )
    if not model.training:
        advice.append(_AUTO)
    return advice


def _any_keywords(model: nn.Module) -> str:
    """Return the name of the ``**`` parameter of ``forward``; empty if there is none."""
    takes = inspect.signature(model.forward).parameters.values()
    return next((each.name for each in takes if each.kind is each.VAR_KEYWORD), "")


def _find_own_error(model: nn.Module, inputs: Inputs) -> str | None:
    """Return the error that the model itself raises when called; None if it raises none."""
    args, kwargs = copy_inputs(*inputs)
    try:
        with restored(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
            model(*args, **kwargs)
    except Exception as error:  # whatever a model raises
        return f"{type(error).__name__}: {error}"
    return None


def _name_causal_flags(cause: Exception) -> str:
    """Return the flags that spare torch's own transformers from reading a mask's values."""
    for frame, _ in walk_tb(cause.__traceback__):
        if flags := _find_undecided(frame):
            names = " and ".join(f"{flag}=True" for flag in flags)
            return (
                f": give {names} for a causal mask, else False; otherwise "
                f"{type(frame.f_locals['self']).__name__} reads that from the mask's values"
            )
    return ""


def _find_undecided(frame: FrameType) -> list[str]:
    """Return arguments of a module's forward that say whether a mask is causal, but are unset."""
    known: dict[str, Any] = frame.f_locals
    if frame.f_code.co_name != "forward" or not isinstance(known.get("self"), nn.Module):
        return []
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
    return [
        name
        for name in names
        if name.endswith(_FLAG)
        and known.get(name) is None
        and isinstance(known.get(name.replace(_FLAG, "mask")), Tensor)
    ]
