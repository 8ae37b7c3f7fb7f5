"""Crops of photographs that scikit-image and scikit-learn ship: real images without a download."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from quantfx.patterns.errors import QuantfxError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE = 224

# Only files inside the wheels: most of skimage.data is fetched on first use. The stereo pair's
# right view and `cat` (another name of `chelsea`) are left out, so that no scene is on both sides.
CALIBRATION_PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "china",
    "coffee",
    "grass",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
)
TEST_PHOTOGRAPHS = (
    "camera",
    "chelsea",
    "clock",
    "coins",
    "flower",
    "gravel",
    "motorcycle",
    "retina",
    "rocket",
)

# Photographs whose loader has another name and returns more than the picture: a stereo pair.
_LOADERS = {"motorcycle": "stereo_motorcycle"}

# EfficientNet-Lite was trained on (pixel - 127) / 128, not on ImageNet's mean and deviation.
_MEAN, _DEVIATION = 127.0, 128.0
_SMALLEST_SHARE = 0.5


def calibration_crops(per_photograph: int = 8) -> Tensor:
    """Return normalised float32 crops ``(n, 3, 224, 224)``, 64 by default, to calibrate with."""
    return _crops(CALIBRATION_PHOTOGRAPHS, per_photograph)


def test_crops(per_photograph: int = 12) -> Tensor:  # noqa: PT028 -- no test, in spite of its name
    """Return 108 crops by default, of other photographs than ``calibration_crops`` uses."""
    return _crops(TEST_PHOTOGRAPHS, per_photograph)


def split_crops(seed: int, calibrating: int = 8, testing: int = 12) -> tuple[Tensor, Tensor]:
    """Return crops of eight photographs to calibrate with, and of the nine others.

    Args:
        seed: Which eight; 0 are those of ``calibration_crops``.
        calibrating: Crops of each that calibrates.
        testing: Crops of each of the others.
    """
    names = [*CALIBRATION_PHOTOGRAPHS, *TEST_PHOTOGRAPHS]
    if seed:
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
        names = [names[place] for place in order.tolist()]
    count = len(CALIBRATION_PHOTOGRAPHS)
    return _crops(tuple(names[:count]), calibrating), _crops(tuple(names[count:]), testing)


def photograph(name: str) -> Tensor:
    """Return a whole photograph as a float32 tensor ``(3, height, width)`` of pixels 0 to 255.

    Raises:
        QuantfxError: scikit-image or scikit-learn is not installed.
    """
    try:
        pixels = torch.tensor(_load(name), dtype=torch.float32)
    except ModuleNotFoundError as error:
        raise QuantfxError(
            f"the photographs need {error.name}",
            rule="missing-package",
            site=str(error.name),
            fix="pip install 'quantfx[demo]'",
        ) from error
    if pixels.dim() == 2:
        return pixels.expand(3, -1, -1)
    return pixels.permute(2, 0, 1)


def _load(name: str) -> NDArray[np.uint8]:
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        sample: NDArray[np.uint8] = load_sample_image(f"{name}.jpg")
        return sample
    from skimage import data

    load: Callable[[], Any] = getattr(data, _LOADERS.get(name, name))
    pixels: NDArray[np.uint8] = load()[0] if name in _LOADERS else load()
    return pixels


def _crops(names: tuple[str, ...], per_photograph: int) -> Tensor:
    return torch.cat([_crops_of(photograph(name), per_photograph) for name in names])


def _crops_of(pixels: Tensor, count: int) -> Tensor:
    """Cut the largest centred square, then ``count - 1`` random squares, the same in every run."""
    height, width = pixels.shape[1:]
    short = min(height, width)
    squares = [((height - short) // 2, (width - short) // 2, short)]
    generator = torch.Generator().manual_seed(height * width)
    while len(squares) < count:
        share, down, right = torch.rand(3, generator=generator).tolist()
        side = int(short * (_SMALLEST_SHARE + (1 - _SMALLEST_SHARE) * share))
        squares.append((int((height - side) * down), int((width - side) * right), side))
    return torch.cat([_resize(pixels[:, y : y + s, x : x + s]) for y, x, s in squares[:count]])


def _resize(square: Tensor) -> Tensor:
    resized = functional.interpolate(
        square.unsqueeze(0), size=(SIDE, SIDE), mode="bilinear", antialias=True
    )
    return (resized.clamp(0, 255) - _MEAN) / _DEVIATION
