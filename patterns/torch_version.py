"""Which versions of torch quantfx supports: the one place that says so.

``make matrix`` runs the tests on each of ``TESTED``. Much of what kernels and compiling need has no
public name in torch, so another version may work, or not.
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch

from quantfx.patterns.errors import QuantfxError, QuantfxWarning

# From old to new. The first is the oldest that is supported, and what CI runs.
TESTED = ("2.13.0", "2.14.1", "2.15.0")


def release(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version of torch, such as ``2.13.0+cpu``."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def is_tested() -> bool:
    """Whether the running torch is of a release that the tests were run on."""
    return release(torch.__version__) in map(release, TESTED)


def require_torch() -> None:
    """Refuse a torch that is older than what is supported.

    Raises:
        QuantfxError: names its version, and what to install.
    """
    if release(torch.__version__) < release(TESTED[0]):
        raise QuantfxError(
            f"torch {torch.__version__} is too old: quantfx needs torch {TESTED[0]} or newer "
            f"(tested with {', '.join(TESTED)}): pip install torch=={TESTED[-1]}"
        )


@lru_cache(maxsize=1)
def warn_of_untested() -> None:
    """Warn, once in a process, where torch is newer than what the tests were run on."""
    if release(torch.__version__) > release(TESTED[-1]):
        warnings.warn(
            f"torch {torch.__version__} is newer than what quantfx was tested with "
            f"({', '.join(TESTED)}). What it changed may be refused, or cost accuracy or speed; "
            f"`quantfx doctor` says which kernels are reached; torch=={TESTED[-1]} is tested",
            QuantfxWarning,
            stacklevel=3,  # whoever called what calls this
        )
