"""Load a saved result and lower it for this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.backends.checks.lowering import Lowering
from quantfx.decoding.cache_operators import GROW, READ
from quantfx.passes.config.config import Config
from quantfx.passes.errors import FileError
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.report.report import Report, rows_of
from quantfx.patterns.errors import QuantfxError, did_you_mean, warn
from quantfx.patterns.torch_version import warn_of_untested
from quantfx.result import Result
from quantfx.saving.dynamic_shapes_text import decode_shapes
from quantfx.saving.file import Contents, read
from quantfx.saving.graph_text import decode_graph
from quantfx.saving.inputs_text import decode_inputs
from quantfx.saving.origin import Origin

# Defined where they are imported: files of decoders with an int8 cache call them.
_OPERATORS = READ, GROW


def load(path: str | Path, *, backend: str | Backend | None = None, strict: bool = True) -> Result:
    """Load the result that ``Result.save`` wrote, lowered for this machine.

    Nothing in the file is executed or unpickled: operators are looked up by name, and tensors are
    read with ``weights_only``. The report is the saved one, with the outcome of each site on this
    machine.

    Args:
        path: The file.
        backend: The backend that lowers it, of the same name as the backend that made it; by
            default quantfx's own of that name.
        strict: Refuse a graph whose integer sums could saturate on this CPU; else warn.

    Raises:
        FileError: the file is not such a file, is damaged or is of another version; or ``backend``
            has another name.
        ContractError: sites would saturate on this CPU, which has no VNNI; names them.
    """
    warn_of_untested()
    path = Path(path)
    contents = read(path)
    chosen = _backend(path, contents.header, backend)
    try:
        result, lowering = _result(contents, chosen, strict)
    except FileError as error:
        raise _of_file(path, contents, error, error.message) from None
    except QuantfxError as error:
        message = f"the graph cannot be lowered here: {error.message}"
        raise _of_file(path, contents, error, message) from error
    except Exception as error:  # damaged text may fail anywhere
        raise FileError(
            f"{path}: the file is damaged, or not written by quantfx "
            f"({type(error).__name__}: {error}){_versions(contents)}",
            rule="damaged-file",
            site=str(path),
            fix="save it again",
        ) from error
    if lowering is not None:
        lowering.require_range(strict=strict)
    return result


def _result(contents: Contents, chosen: Backend, strict: bool) -> tuple[Result, Lowering | None]:
    header = contents.header
    config = header["config"]
    if config is not None:
        chosen = chosen.with_config(Config.from_json(config))
    args, kwargs = decode_inputs(header["inputs"], contents.tensors)
    inputs = ExampleInputs(args, kwargs, decode_shapes(header["dynamic_shapes"]))
    quantized = decode_graph(contents.graph, contents.tensors)
    report = Report.from_dict(header["report"])
    origin = Origin.from_dict(header["origin"])
    lowering = chosen.lowering(quantized) if chosen.kernels else None
    if lowering is not None:
        report = replace(report, rows=rows_of(lowering.sites), sites=lowering.sites)
    result = Result(
        quantized,
        lowering=lowering,
        report=report,
        backend=chosen,
        inputs=inputs,
        strict=strict,
        origin=origin,
    )
    return result, lowering


def _of_file(path: Path, contents: Contents, error: QuantfxError, message: str) -> FileError:
    """Return ``error`` with the file before its message and the versions that wrote it after."""
    text = f"{path}: {message}{_versions(contents)}"
    return FileError(text, rule=error.rule, site=error.site or str(path), fix=error.fix)


def _backend(path: Path, header: dict[str, Any], given: str | Backend | None) -> Backend:
    name: str = header["backend"]
    if given is None:
        if name not in backends.NAMES:
            raise FileError(
                f"{path}: backend '{name}' made it, which is not a backend of "
                f"quantfx{did_you_mean(name, backends.NAMES)}",
                rule="unknown-name",
                site=name,
                fix="pass backend=<that backend>",
            )
        if header["variant"]:
            warn(
                f"{path}: a variant of backend '{name}' made it, with other patterns, kernels "
                "or lowering, and quantfx's own lowers it now.",
                rule="other-backend",
                site=name,
                fix="pass backend=<that variant>",
                stacklevel=3,
            )
    chosen = given if isinstance(given, Backend) else backends.get(given or name)
    if chosen.name != name:
        raise FileError(
            f"{path}: backend '{name}' made it, and '{chosen.name}' is given, which has other "
            "kernels",
            rule="other-backend",
            site=name,
            fix=f"give the backend that made it; if it is the same, pass backend.renamed('{name}')",
        )
    return chosen


def _versions(contents: Contents) -> str:
    written = contents.header.get("torch")
    if written == torch.__version__:
        return ""
    return f". It was written with torch {written}, and this is torch {torch.__version__}"
