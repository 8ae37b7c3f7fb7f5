"""Weights that a compiled graph holds as constants, with a check that they are unchanged."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Sequence

from torch import Tensor

from quantfx.passes.errors import StaleWeightsError


class BoundWeights:
    """The model's own tensors, by name and identity, with their state when they were read.

    They are referred to weakly: a compiled graph keeps no model alive.

    Args:
        tensors: Dotted name and tensor of each.
        counters: Likewise for tensors that are written to whenever some of ``tensors`` are. Running
            statistics of a batch norm count no writes: its operator does not declare that it
            writes.
    """

    def __init__(
        self,
        tensors: Sequence[tuple[str, Tensor]],
        counters: Sequence[tuple[str, Tensor]] = (),
    ) -> None:
        self.names = tuple(name for name, _ in (*tensors, *counters))
        self._stamped = [
            (weakref.ref(tensor), _no_version if tensor.is_inference() else _version)
            for _, tensor in (*tensors, *counters)
        ]
        self._count = len(tensors)
        self._stamps = self._current()

    def copy(self) -> BoundWeights:
        """Return the same tensors, noted independently."""
        pairs = self._find_existing()
        return BoundWeights(pairs[: self._count], pairs[self._count :])

    def same_tensors(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these are the very tensors."""
        return len(tensors) == self._count and all(
            reference() is tensor
            for (reference, _), tensor in zip(self._stamped, tensors, strict=False)
        )

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of tensors that were written to, or given other storage, since ``note``.

        Writes through ``.data`` are not seen.
        """
        now = self._current()
        if now == self._stamps:
            return ()
        pairs = zip(self.names, now, self._stamps, strict=True)
        return tuple(name for name, new, old in pairs if new != old)

    def note(self) -> None:
        """Accept the tensors as they are now."""
        self._stamps = self._current()

    def require_unchanged(self, remedy: str) -> None:
        """Check that the graph still computes with the model's weights.

        Args:
            remedy: What to do, for the message.

        Raises:
            StaleWeightsError: a tensor was written to since ``note``; names it.
        """
        if self._current() == self._stamps:
            return
        first, *others = self.changed
        more = f" and {len(others)} more" if others else ""
        message = (
            f"{first}{more} changed since the model was converted to int8, whose weights are the "
            "earlier values"
        )
        raise StaleWeightsError(message, rule="stale-weights", site=first, fix=remedy)

    @property
    def tensors(self) -> list[tuple[str, Tensor]]:
        """Name and tensor of each.

        Raises:
            StaleWeightsError: a tensor does not exist any more.
        """
        return self._find_existing()[: self._count]

    @property
    def living(self) -> list[Tensor]:
        """The tensors that still exist."""
        references = (reference for reference, _ in self._stamped[: self._count])
        return [tensor for reference in references if (tensor := reference()) is not None]

    def require_same_memory(self, where: str) -> None:
        """Check that tensors are in the memory where they were read, even if written to since.

        Raises:
            StaleWeightsError: a tensor was given other memory, or does not exist any more; names
                it.
        """
        pairs = zip(self.names, self._current(), self._stamps, strict=True)
        moved = [name for name, (_, now), (_, before) in pairs if now != before]
        if moved:
            raise StaleWeightsError(
                f"{moved[0]} was given other memory (.data, or to() of the model) since {where} "
                "was compiled",
                rule="moved-weights",
                site=moved[0],
                fix="compile the model again (torch.compiler.reset() first)",
            )

    def _find_existing(self) -> list[tuple[str, Tensor]]:
        found: list[tuple[str, Tensor]] = []
        for name, (reference, _) in zip(self.names, self._stamped, strict=True):
            tensor = reference()
            if tensor is None:
                raise StaleWeightsError(
                    f"{name} does not exist any more", rule="lost-weights", site=name
                )
            found.append((name, tensor))
        return found

    def _current(self) -> list[tuple[int, int]]:
        # Called before each int8 call, so written for speed.
        return [
            _GONE if (tensor := reference()) is None else (versions(tensor), tensor.data_ptr())
            for reference, versions in self._stamped
        ]


_GONE = (-1, -1)


def _version(tensor: Tensor) -> int:
    return tensor._version


def _no_version(_: Tensor) -> int:
    return 0  # tensors made in inference mode count no writes


def release_weights(weights: Collection[BoundWeights], needed: Collection[int]) -> int:
    """Free the memory of weights; return the number of bytes.

    The tensors stay the same objects with the same shapes, so that Dynamo's guards hold. Reading
    one raises torch's error about storage without data.

    Args:
        weights: Weights that graphs hold as constants.
        needed: Addresses of memory that some graph still reads.
    """
    count = 0
    for each in weights:
        for tensor in each.living:
            storage = tensor.untyped_storage()
            if storage.nbytes() and storage.data_ptr() not in needed:
                count += storage.nbytes()
                storage.resize_(0)
    for each in weights:
        each.note()
    return count


def is_released(tensor: Tensor) -> bool:
    """Whether the memory of ``tensor`` was freed."""
    return tensor.numel() > 0 and tensor.untyped_storage().nbytes() == 0
