"""From one changed answer in seven to one in twenty: EfficientNet-Lite0 step by step.

docs/accuracy.md explains the steps and shows what this prints. To run it::

    pip install -c constraints.txt -e ".[demo,direct]"
    pip install --no-deps -r requirements-demo.txt
    python docs/examples/accuracy/walk.py [FOLDER]    # where pictures go; five to ten minutes

The photographs have no labels, so the measure is how often the int8 network gives the same answer
as the float network. The photographs that both answer for are in no other step.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

import quantfx
from quantfx.tools.measure.metrics import sqnr_db, top1_agreement
from quantfx.tools.models import photographs
from quantfx.tools.models.efficientnet_lite import load_efficientnet_lite0


def main(folder: Path) -> None:
    """Take each step, and print how many answers stay."""
    folder.mkdir(parents=True, exist_ok=True)
    model = load_efficientnet_lite0()
    batches = list(torch.split(photographs.calibration_crops(), 4))
    unseen = list(torch.split(photographs.test_crops(), 4))
    example = (batches[0],)

    def report(step: str, module: nn.Module) -> None:
        with torch.no_grad():
            exact = torch.cat([model(batch) for batch in unseen])
            given = torch.cat([module(batch) for batch in unseen])
        same, decibels = top1_agreement(exact, given), sqnr_db(exact, given)
        print(f"{step}: {same:.1%} of the answers stay, {decibels:.1f} dB", flush=True)

    # 1. Scales and nothing else.
    unrepaired = quantfx.backends.get("x86", repair=False)
    plain = quantfx.quantize(model, example, calibration=batches, backend=unrepaired)
    report("1. int8", plain.module)

    # 2. Where is it lost? What a site costs by itself, and the twelve that cost most.
    before = plain.sensitivity(batches)
    for row in before.ranked()[:5]:
        print(f"   {row.name}: {row.cost / before.predict():.0%} of the noise at the outputs")
    before.chart(folder / "before.svg", most=12)

    # 3. The same kernels with other numbers in them: by 32 samples, then by all.
    repaired = quantfx.quantize(model, example, calibration=batches)
    report("2. repaired, by default", repaired.module)
    thorough = quantfx.backends.get("x86", repair=True)
    repaired = quantfx.quantize(model, example, calibration=batches, backend=thorough)
    report("3. repaired, by all data", repaired.module)
    repaired.sensitivity(batches).chart(folder / "after.svg", most=12)

    # 4. As few sites in float as a goal needs; half of the items calibrate.
    items = list(torch.split(photographs.calibration_crops(16), 1))
    found = quantfx.quantize_to(
        model, (items[0],), items, metric="sqnr", at_least=25.0, time_limit=600.0
    )
    print(found)
    unseen[:] = [each for batch in unseen for each in torch.split(batch, 1)]
    report(f"4. {found.float_share:.1%} of the multiplications in float", found.result.module)


if __name__ == "__main__":
    torch.manual_seed(0)
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "accuracy-out"))
