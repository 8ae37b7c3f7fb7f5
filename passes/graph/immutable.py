"""Values that refuse to be changed."""

from __future__ import annotations

from dataclasses import FrozenInstanceError


class Immutable:
    """Base of frozen dataclasses whose subclasses are frozen without being decorated themselves.

    A frozen dataclass looks at the fields alone if its subclass is no dataclass of its own.
    """

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse.

        Raises:
            FrozenInstanceError: always.
        """
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        """Refuse.

        Raises:
            FrozenInstanceError: always.
        """
        raise FrozenInstanceError(f"cannot delete field {name!r}")
