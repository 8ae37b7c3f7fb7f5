"""Bochs: what the emulated machine is made of, and one run of it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

ENDED = "emulated machine: ended"
_PARTS = """\
cpu: model={model}, count=1, ips=100000000, reset_on_triple_fault=0
memory: guest={memory}, host={memory}
romimage: file={firmware}/BIOS-bochs-latest
vgaromimage: file={firmware}/VGABIOS-lgpl-latest
pci: enabled=1, chipset=i440fx
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata0-master: type=disk, path={root}, mode=volatile
ata0-slave: type=disk, path={job}, mode=flat
ata1-master: type=cdrom, path={boot}, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={serial}
clock: sync=none, time0=local
display_library: nogui
panic: action=fatal
error: action=ignore
info: action=ignore
log: {log}
"""


def run_machine(
    bochs: Sequence[str], model: str, disks: dict[str, Path], folder: Path, limit: float
) -> str:
    """Run a CPU model until its job has ended; return what it wrote to the serial console.

    Args:
        bochs: The command of Bochs.
        model: One of ``bochs -help cpu``.
        disks: Images of ``root``, ``job`` and ``boot``.
        folder: Where logs go.
        limit: Seconds after which the machine is switched off.
    """
    serial = folder / f"{model}.txt"
    serial.unlink(missing_ok=True)
    for (
        image
    ) in disks.values():  # Bochs leaves these if it is killed, and opens nothing that has one
        Path(f"{image}.lock").unlink(missing_ok=True)
    text = _PARTS.format(
        model=model,
        memory=3584,
        firmware="/usr/share/bochs",
        serial=serial,
        log=folder / f"{model}.log",
        **disks,
    )
    settings = folder / f"{model}.bochsrc"
    settings.write_text(text)
    with (folder / f"{model}.out").open("w") as out:
        process = subprocess.Popen(
            [*bochs, "-q", "-f", str(settings)], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
        _wait(process, serial, limit)
    return serial.read_text(errors="replace")


def _wait(process: subprocess.Popen[bytes], serial: Path, limit: float) -> None:
    end = time.monotonic() + limit
    while process.poll() is None and time.monotonic() < end:
        time.sleep(2)
        if serial.exists() and ENDED in serial.read_text(errors="replace"):
            time.sleep(10)  # it writes its disk, and switches itself off
            break
    if process.poll() is None:
        process.terminate()
        process.wait()
