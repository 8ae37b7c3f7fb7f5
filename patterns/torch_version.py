"""The versions of torch that quantfx supports; no other file states them.

``make matrix`` runs the tests on each of ``TESTED``. Much of what kernels and compilation need has
no public name in torch, so other versions may or may not work.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from quantfx.patterns.errors import QuantfxError, warn

# From old to new. The first is the oldest supported version, and the one that CI runs.
TESTED = ("2.13.0", "2.14.1", "2.15.0")


def release(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version of torch, such as ``2.13.0+cpu``."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def is_tested() -> bool:
    """Whether the running torch is a release that the tests were run on."""
    return release(torch.__version__) in map(release, TESTED)


def require_torch() -> None:
    """Refuse a torch older than the oldest supported version.

    Raises:
        QuantfxError: names its version, and what to install.
    """
    if release(torch.__version__) < release(TESTED[0]):
        raise QuantfxError(
            f"torch {torch.__version__} is too old: quantfx needs torch {TESTED[0]} or newer "
            f"(tested with {', '.join(TESTED)})",
            rule="torch-version",
            site=torch.__version__,
            fix=f"pip install torch=={TESTED[-1]}",
        )


@lru_cache(maxsize=1)
def warn_of_untested() -> None:
    """Warn, once per process, if torch is newer than the tested versions."""
    if release(torch.__version__) > release(TESTED[-1]):
        warn(
            f"torch {torch.__version__} is newer than the versions that quantfx was tested "
            f"with ({', '.join(TESTED)}). Its changes may be refused, or cost accuracy or "
            f"speed; `quantfx doctor` says which kernels are reached; torch=={TESTED[-1]} is "
            "tested",
            rule="torch-version",
            site=torch.__version__,
            stacklevel=3,
        )
