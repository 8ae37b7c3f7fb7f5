"""Free the memory of float weights that int8 code has replaced."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from quantfx.dynamo.bound_weights import BoundWeights


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
