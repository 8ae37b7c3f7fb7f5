"""The options of ``torch.compile(..., options={...})`` for quantfx's backends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.dynamo.compile_state import CompileState, shared_state
from quantfx.passes.errors import OptionError
from quantfx.patterns.errors import unknown_name

_SHARED = shared_state()


class Batches:
    """Calibration data for ``options``: any iterable of batches, compared by identity.

    ``torch.compile`` compares the options of two calls, which fails for lists of tensors.

    Args:
        data: Batches, as ``quantfx.calibrate`` takes them.
    """

    def __init__(self, data: Iterable[Any]) -> None:
        self._data = data

    def __iter__(self) -> Any:
        return iter(self._data)


@dataclass(frozen=True)
class Options:
    """The options of a backend of ``torch.compile``.

    Attributes:
        calibration_batches: Number of calls to observe, in float, before int8.
        calibration: Batches to observe when the model is compiled, so that the first call is
            already int8; None observes calls.
        input_fn: Turns what ``calibration`` yields into a batch.
        config: What is quantized how; None keeps the backend's own.
        strict: Raise where the contract does not hold; else warn.
        target: ``host``, ``any``, or the name of an instruction set.
        check_weights: Refuse calls after weights were written to; costs some 0.4 us per weight.
        state: Keeps the account of each graph, to inspect it.
        rest: Options of the backend's own function, e.g. ``reduce_range``.
    """

    calibration_batches: int = 8
    calibration: Iterable[Any] | None = None
    input_fn: Callable[[Any], Any] | None = None
    config: Any = None
    strict: bool = True
    target: str = "host"
    check_weights: bool = True
    state: CompileState = _SHARED
    rest: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def backend(self, name: str) -> Backend:
        """Return the backend called ``name`` with these options.

        Raises:
            QuantfxError: the target or the config does not exist or is ill-formed.
        """
        given = {} if self.config is None else {"config": self.config}
        return backends.get(name, target=self.target, **given, **self.rest)


def read_options(
    compiler: str,
    backend: str | None,
    options: Mapping[str, Any] | None,
    mode: str | None,
    only: tuple[str, ...] = (),
) -> Options:
    """Return the options of one ``torch.compile``.

    Args:
        compiler: Name of the ``torch.compile`` backend, for messages.
        backend: Name of the quantfx backend whose options are taken as well; None for none.
        options: The user's options.
        mode: The user's mode.
        only: The options of `Options` that it has; by default all.

    Raises:
        OptionError: an option or mode is unknown, or a value is of a wrong kind.
    """
    if mode not in (None, "default"):
        message = f"mode='{mode}' is Inductor's, and backend {compiler} has no modes"
        raise OptionError(message, rule="option-value", site="mode", fix="leave it out")
    given = dict(options or {})
    own = only or tuple(name for name in Options.__dataclass_fields__ if name != "rest")
    more = () if backend is None else backends.options_of(backend)
    for name in given:
        if name not in (*own, *more):
            known = sorted((*own, *more))
            raise unknown_name(OptionError, "option", name, known, of=f"backend {compiler}")
    for name, value in given.items():
        problem = _problem(name, value)
        if problem:
            raise OptionError(
                f"option '{name}' of backend {compiler} {problem}", rule="option-value", site=name
            )
    if given.get("calibration") is not None and "calibration_batches" in given:
        raise OptionError(
            "options 'calibration' and 'calibration_batches' exclude each other: the first "
            "observes data at once, the second the first calls",
            rule="option-value",
            site="calibration",
            fix="give one of them",
        )
    rest = {name: value for name, value in given.items() if name in more and name not in own}
    return Options(**{k: v for k, v in given.items() if k not in rest}, rest=rest)


def _problem(name: str, value: object) -> str:
    """Return what is wrong with the value of an option; empty if nothing."""
    if name == "calibration_batches" and (isinstance(value, bool) or not isinstance(value, int)):
        return f"is a {type(value).__name__}, not a number of calls"
    if name == "calibration_batches" and isinstance(value, int) and value < 0:
        return f"is {value}: not a number of calls"
    if name in ("strict", "check_weights") and not isinstance(value, bool):
        return f"is a {type(value).__name__}, not True or False"
    if name == "state" and not isinstance(value, CompileState):
        return f"is a {type(value).__name__}, not a quantfx.CompileState"
    if name == "input_fn" and value is not None and not callable(value):
        return f"is a {type(value).__name__}, not a function"
    if name == "calibration" and isinstance(value, (list, tuple, dict, Tensor)):
        return (
            f"is a {type(value).__name__}: torch.compile compares options, and such values do not "
            "compare. Pass a DataLoader, or quantfx.Batches(data)"
        )
    if name == "calibration" and value is not None and not isinstance(value, Iterable):
        return f"is a {type(value).__name__}, not an iterable of batches"
    return ""
