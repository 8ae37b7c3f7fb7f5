"""Make a network of the zoo and its data, the same in every process."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantfx.tools.zoo.networks import Network, Values, ZooError
from quantfx.tools.zoo.weights import settle, wake

Inputs = tuple[tuple[Any, ...], dict[str, Any]]

_CALIBRATION = range(1, 9)
_TEST = range(9, 11)
_PATCHES = 4
_NMS = "(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor"


@dataclass(frozen=True)
class Specimen:
    """A network with its inputs.

    Attributes:
        model: The network in eval mode, with random weights.
        example: Positional and keyword arguments.
        calibration: Further inputs of the same shapes.
        test: Other inputs, on which outputs are compared.
    """

    model: nn.Module
    example: Inputs
    calibration: tuple[Inputs, ...]
    test: tuple[Inputs, ...]


def build(network: Network) -> Specimen:
    """Return the network with seeded weights and data.

    Raises:
        ZooError: the library makes no such network, or is not installed.
    """
    torch.manual_seed(0)
    try:
        model = _make(network)
    except Exception as error:  # foreign code
        message = f"{network.model}: {type(error).__name__}: {error}"
        raise ZooError(message, rule="foreign-code", site=network.model) from error
    model.eval()
    wake(model)
    args, kwargs = _inputs(network, 0)
    settle(model, args, kwargs)
    return Specimen(
        model,
        (args, kwargs),
        tuple(_inputs(network, seed) for seed in _CALIBRATION),
        tuple(_inputs(network, seed) for seed in _TEST),
    )


def _make(network: Network) -> nn.Module:
    if network.library != "module":
        _import_torchvision()  # both libraries do
    if network.library == "timm":
        return _module(import_module("timm").create_model(network.model, **network.arguments))
    if network.library == "transformers":
        transformers = import_module("transformers")
        config = getattr(transformers, network.config)(**network.arguments)
        return _module(_find(network.model, "transformers")(config))
    return _module(_find(network.model)(**network.arguments))


def _module(made: object) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise TypeError(f"a {type(made).__name__} was made, not an nn.Module")
    return made


def _find(model: str, package: str = "") -> Any:
    """Return the object ``module:name`` inside ``package``, or a name of the package itself."""
    path, _, name = model.rpartition(":")
    return getattr(import_module(".".join(filter(None, (package, path)))), name)


def _import_torchvision() -> None:
    """Import torchvision even if its library, which is built for CUDA, does not load.

    torchvision registers fake kernels for two operators of that library, and fails if they are not
    declared. No network of the zoo uses them.
    """
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", _NMS)


def _inputs(network: Network, seed: int) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    made = {name: _tensor(values, generator) for name, values in network.inputs.items()}
    positional = tuple(tensor for name, tensor in made.items() if not name)
    return positional, {name: tensor for name, tensor in made.items() if name}


def _tensor(values: Values, generator: torch.Generator) -> Tensor:
    if values.kind == "tokens":
        return torch.randint(values.below, values.shape, generator=generator)
    if values.kind == "ones":
        return torch.ones(values.shape, dtype=torch.int64)
    noise = torch.randn(values.shape, generator=generator)
    if values.kind == "normal":
        return noise
    # For a network that pools, all images of pure noise would be the same.
    patches = torch.randn(*values.shape[:2], _PATCHES, _PATCHES, generator=generator)
    return F.interpolate(patches, values.shape[2:]) + 0.3 * noise
