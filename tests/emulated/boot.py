"""The boot disc of the emulated machine: a kernel of Debian, and modules for its disks."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

_MODULES = ("scsi_common", "scsi_mod", "libata", "ata_piix", "sd_mod")
_HERE = Path(__file__).parent
_OPTIONS = (
    "console=ttyS0 loglevel=1 nosmp mitigations=off random.trust_cpu=on init_on_alloc=0 "
    # As many ticks in a second as machine.py gives the CPU instructions; CPUID says otherwise.
    "tsc_early_khz=100000 tsc=reliable "
    # Without fsrm: Bochs has it, but no fast strings, for which Linux's memmove is not made.
    "clearcpuid=580 "
    # Bochs does not return to five levels of pages from SMM.
    "no5lvl"
)
_MENU = f"""set timeout=0
serial --unit=0
terminal_output serial
linux /boot/vmlinuz {_OPTIONS}
initrd /boot/initramfs
boot
"""


def build_boot(folder: Path) -> Path:
    """Return an image of a disc that GRUB boots."""
    kernel = _fetch_kernel(folder)
    stage, disc = folder / "boot", folder / "boot.iso"
    shutil.rmtree(stage, ignore_errors=True)
    (stage / "boot/grub").mkdir(parents=True)
    (stage / "boot/grub/grub.cfg").write_text(_MENU)
    (vmlinuz,) = kernel.glob("boot/vmlinuz-*")
    shutil.copy2(vmlinuz, stage / "boot/vmlinuz")
    _build_initramfs(folder, kernel, stage / "boot/initramfs")
    command = ["grub-mkrescue", "-o", str(disc), str(stage)]
    subprocess.run(command, check=True, capture_output=True)
    return disc


def _fetch_kernel(folder: Path) -> Path:
    """Return the unpacked package of Debian's kernel for virtual machines, downloaded once."""
    unpacked = folder / "kernel"
    if not unpacked.exists():
        command = ["apt-cache", "depends", "linux-image-cloud-amd64"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        (name,) = re.findall(r"Depends: (linux-image-\S+)", said)
        subprocess.run(["apt-get", "download", name], check=True, cwd=folder)
        (package,) = folder.glob(f"{name}_*.deb")
        subprocess.run(["dpkg", "-x", package, unpacked], check=True)
    return unpacked


def _build_initramfs(folder: Path, kernel: Path, target: Path) -> None:
    stage = folder / "initramfs"
    shutil.rmtree(stage, ignore_errors=True)
    for name in ("bin", "modules", "proc", "sys", "dev", "root"):
        (stage / name).mkdir(parents=True)
    shutil.copy2(shutil.which("busybox") or "busybox", stage / "bin/busybox")
    shutil.copy2(_HERE / "guest/init", stage / "init")
    (stage / "init").chmod(0o755)
    files = {path.stem: path for path in kernel.rglob("*.ko")}
    order = list(dict.fromkeys(_with_needed(files, _MODULES)))
    for name in order:
        shutil.copy2(files[name], stage / "modules")
    (stage / "modules/order").write_text("".join(f"{name}\n" for name in order))
    pack = "find . | busybox cpio -o -H newc 2>/dev/null | gzip -1"
    with target.open("wb") as file:
        subprocess.run(["sh", "-c", pack], check=True, cwd=stage, stdout=file)


def _with_needed(files: dict[str, Path], names: tuple[str, ...]) -> Iterator[str]:
    """Yield modules after those that they need; what the kernel has built in is no file."""
    for name in names:
        (needed,) = re.findall(rb"\0depends=([^\0]*)", b"\0" + files[name].read_bytes())
        said = tuple(each for each in needed.decode().split(",") if each)
        yield from _with_needed(files, said)
        yield name
