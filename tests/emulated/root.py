"""The disk that the emulated machine runs on: this machine's Python, torch and g++, at their paths."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

# Of the base interpreter, what no test imports: half of its size.
_LEFT_OUT = shutil.ignore_patterns(
    "test", "idlelib", "tkinter", "ensurepip", "config-3*", "*.a", "mypy*", "*__mypyc*", "pyright*"
)
_PROGRAMS = ("g++", "as", "ld", "ld.gold", "env")
_OF_THE_COMPILER = ("cc1plus", "collect2", "lto-wrapper", "liblto_plugin.so")
_LINKED = (
    "crt1.o crti.o crtn.o Scrt1.o libc.so libc_nonshared.a libm.so libmvec.so libgcc_s.so.1 "
    "libgcc.a libgcc_eh.a crtbegin.o crtbeginS.o crtend.o crtendS.o libgomp.so libgomp.spec "
    "libstdc++.so"
)
_FOLDERS = ("usr/bin", "usr/lib", "usr/lib64", "usr/sbin")
_MOUNTED = ("proc", "sys", "dev", "tmp", "root", "job")


def build_root(folder: Path) -> Path:
    """Return a disk image of a root folder; about a minute, and three gigabytes."""
    image = folder / "root.img"
    stage = folder / "root"
    shutil.rmtree(stage, ignore_errors=True)
    for name in ("etc", *_FOLDERS, *_MOUNTED):
        (stage / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (stage / name).symlink_to(f"usr/{name}")
    _copy_python(stage)
    _copy_compiler(stage)
    _copy(stage, Path(_found("busybox")))
    (stage / "usr/bin/sh").symlink_to("busybox")
    (stage / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (stage / "etc/hosts").write_text("127.0.0.1 localhost\n")
    _copy_libraries(stage)
    make_disk(stage, image, spare=600)
    shutil.rmtree(stage)
    return image


def make_disk(stage: Path, image: Path, *, spare: int) -> None:
    """Write a folder into a file system, with ``spare`` megabytes left."""
    sizes = subprocess.run(["du", "-sm", stage], capture_output=True, check=True, text=True)
    megabytes = int(int(sizes.stdout.split()[0]) * 1.15) + spare
    image.unlink(missing_ok=True)
    command = ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(stage), str(image)]
    subprocess.run([*command, f"{megabytes}M"], check=True)


def _copy_python(stage: Path) -> None:
    """Copy the environment that runs this, and the interpreter that it was made from."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base, venv = Path(sys.base_prefix), Path(sys.prefix)
    for each in base.glob("lib/libpython*.so*"):
        _copy(stage, each)
    library = base / "lib" / version
    _copy_tree(stage, library, leave_out=("site-packages", "dist-packages"))
    if venv != base:
        for name in ("bin", "lib", "include", "pyvenv.cfg", "lib64"):
            _copy_tree(stage, venv / name)
    _copy(stage, Path(sys.executable))  # what the links of the environment lead to


def _copy_compiler(stage: Path) -> None:
    for name in _PROGRAMS:
        _copy(stage, Path(_found(name)))
    for name in _OF_THE_COMPILER:
        _copy(stage, Path(_asked(f"-print-prog-name={name}")))
        _copy(stage, Path(_asked(f"-print-file-name={name}")))
    for name in _LINKED.split():
        _copy(stage, Path(_asked(f"-print-file-name={name}")))
    said = subprocess.run(
        ["g++", "-E", "-v", "-x", "c++", os.devnull], capture_output=True, check=True, text=True
    ).stderr
    for line in said.partition("search starts here:")[2].splitlines():
        if Path(line.strip()).is_dir() and line.startswith(" /"):
            _copy_tree(stage, Path(os.path.normpath(line.strip())))


def _copy_libraries(stage: Path) -> None:
    """Copy the libraries of the system that anything on the disk is linked with."""
    files = [path for path in stage.rglob("*") if path.is_file() and not path.is_symlink()]
    linked = [path for path in files if ".so" in path.name or os.access(path, os.X_OK)]
    for path in _linked_with(linked, stage):
        _copy(stage, path)


def _linked_with(files: Iterable[Path], stage: Path) -> Iterator[Path]:
    names = [f"/{path.relative_to(stage)}" for path in files]
    for start in range(0, len(names), 100):
        said = subprocess.run(
            ["ldd", *names[start : start + 100]], capture_output=True, check=False, text=True
        ).stdout
        yield from {Path(each) for each in re.findall(r"(/\S+) \(0x", said)}


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise FileNotFoundError(f"{program} is not installed")
    return path


def _asked(question: str) -> str:
    """Return what g++ answers: a path, or a bare name if it has none."""
    command = ["g++", question]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


def _copy(stage: Path, path: Path) -> None:
    """Copy a file, and what it links to, to the same place under ``stage``."""
    if not path.is_absolute() or not path.exists():
        return
    target = _under(stage, path)
    if not path.is_symlink():
        _link(path, target)
        return
    if not target.is_symlink():
        target.symlink_to(os.readlink(path))
    _copy(stage, path.parent / os.readlink(path))


def _copy_tree(stage: Path, path: Path, leave_out: tuple[str, ...] = ()) -> None:
    if not path.is_dir() or path.is_symlink():
        _copy(stage, path)
        return

    def ignored(folder: str, names: list[str]) -> set[str]:
        return {*_LEFT_OUT(folder, names), *(leave_out if Path(folder) == path else ())}

    shutil.copytree(
        path,
        _under(stage, path),
        symlinks=True,
        ignore=ignored,
        copy_function=_link,
        dirs_exist_ok=True,
    )


def _under(stage: Path, path: Path) -> Path:
    """Return the place of a path; its folder with links resolved, as the links are in the root."""
    target = stage / str(path.parent.resolve() / path.name).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _link(source: str | Path, target: str | Path) -> None:
    """Share the file where both are on one disk."""
    if Path(target).exists():
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
