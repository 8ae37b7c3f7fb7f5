"""Why torch.export rejects a model, in its words and ours: what to write instead."""

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
from quantfx.passes.model.state import restored

# What torch's reasons say to developers of torch: its logs, its own source, other tools of its.
_NOISE = re.compile(
    r"(! |\. )?For (more|extended) (information|logs|debugging help)[^\n]*"
    r"|If you suspect the guard was triggered from C\+\+[^\n]*"
    r"|For C\+\+ stack trace[^\n]*"
    r"|The error above occurred when calling torch\.export[^\n]*"
    r"|Caused by: \([^\n]*\)"
    r"|consider using data-dependent friendly APIs[^\n]*"
    r"| \(unhinted: [^\n]*?\)\.(?=\s|$)|  \(Size-like symbols: [^\n]*\)"
    r"|The following call raised this error:(\n  [^\n]*)+"  # a call of ours, which watches it
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
    """Return the whole of what torch says, its suggested fixes too, without hints at its logs."""
    text = _NOISE.sub("", str(error))
    lines = [line.rstrip() for line in text.strip().splitlines()]
    kept = [line for line in lines if line]
    first = [f"{type(error).__name__}: {kept[0]}", *kept[1:]] if kept else [repr(error)]
    return "\n".join((*first, *_place(error)))


def _place(error: Exception) -> list[str]:
    """Return the last line of the model's own code on the way to the error, if there is one."""
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
    """Add to a refusal of torch.export's what to write instead.

    Args:
        model: What is exported.
        inputs: What with: it is called once with copies of them, to learn whether it can be.
    """
    try:
        yield
    except CaptureError as error:
        cause = error.__cause__
        if not isinstance(cause, Exception):
            raise
        advice = _advice(cause, model, inputs)
        raise CaptureError("\n".join((str(error), *advice))) from cause


def _advice(cause: Exception, model: nn.Module, inputs: Inputs) -> list[str]:
    text = f"{type(cause).__name__}: {cause}"
    if _ON_SHAPES.search(text):
        return []  # torch names the dimension, and what to write for it
    if "tree_name" in text and (named := _any_keywords(model)):  # torch 2.13 means this by it
        return [
            f"torch.export leaves no size free in a model that takes **{named}: write an argument "
            "for each of them, without **"
        ]
    own = _find_own_error(model, inputs)
    if own is not None:
        return [f"{type(model).__name__} itself fails on these inputs: {own}"]
    advice: list[str] = []
    if _ON_DATA.search(text):
        advice.append(
            "The model takes its path by values in tensors, and a graph has one path"
            f"{_name_causal_flags(cause)}"
        )
    if not model.training:
        advice.append(_AUTO)
    return advice


def _any_keywords(model: nn.Module) -> str:
    """Return the name that ``forward`` has for keyword arguments of any name; empty if none."""
    takes = inspect.signature(model.forward).parameters.values()
    return next((each.name for each in takes if each.kind is each.VAR_KEYWORD), "")


def _find_own_error(model: nn.Module, inputs: Inputs) -> str | None:
    """Return what the model raises when it is called as it is, if it does."""
    args, kwargs = copy_inputs(*inputs)
    try:
        with restored(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
            model(*args, **kwargs)
    except Exception as error:  # whatever a model raises
        return f"{type(error).__name__}: {error}"
    return None


def _name_causal_flags(cause: Exception) -> str:
    """Return which flags of torch's own transformers say what they else read from a mask."""
    for frame, _ in walk_tb(cause.__traceback__):
        if flags := _find_undecided(frame):
            names = " and ".join(f"{flag}=True" for flag in flags)
            return (
                f": give {names} for a causal mask, False for another, which "
                f"{type(frame.f_locals['self']).__name__} else reads from its values"
            )
    return ""


def _find_undecided(frame: FrameType) -> list[str]:
    """Return the arguments of a module's forward that say whether a mask is causal, and do not."""
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
