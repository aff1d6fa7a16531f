"""What is put under a process rather than between processes: a full disk, a power cut, a clock that jumps."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent


class CannotInject(Exception):
    """This machine lacks what a fault needs (a C compiler, the right to mount); the trial is skipped."""


def build_shim(folder: Path) -> Path:
    """Compile the shim; raises `CannotInject` without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CannotInject("the clock and the power cut need a C compiler")
    library = folder / "shim.so"
    command = (compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(HERE / "shim.c"), "-ldl")
    subprocess.run(command, check=True, capture_output=True)
    return library


class SteppingClock:
    """A file whose number is added to the wall clock of every process that was started with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(8))
        self._file = path.open("r+b")
        self._page = mmap.mmap(self._file.fileno(), 8)

    def step(self, seconds: float) -> None:
        """From now on the clock is ``seconds`` away from the true time."""
        self._page[:8] = struct.pack("<q", int(seconds * 1e9))

    def close(self) -> None:
        self._page.close()
        self._file.close()


class PowerCut:
    """Keeps what was fsynced of a spool; `strike` leaves the disk as a power cut would."""

    def __init__(self, folder: Path, spools: Path) -> None:
        self.folder = folder
        self.strikes = 0
        self.armed = False
        self._spools = spools
        folder.mkdir(parents=True, exist_ok=True)

    def strike(self) -> None:
        """Before a start: where the power was cut, only what had been fsynced is on the disk."""
        if not self.armed:
            return
        self.armed = False
        self.strikes += 1
        for path in self._spools.glob("spool-*"):
            if path.suffix == ".lock":
                continue
            path.unlink()
            # What was deleted meanwhile (a rollback journal) stays deleted: only what there was comes back.
            if (kept := self.folder / path.name).exists():
                shutil.copyfile(kept, path)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """``folder`` as a disk of its own; raises `CannotInject` where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder))
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise CannotInject(f"a small disk cannot be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(("umount", "--lazy", str(folder)), check=False, capture_output=True)


def fill(folder: Path) -> Path:
    """Leave not a byte on the disk of ``folder``; remove the returned file to give it back."""
    filler = folder / "filler"
    block = bytes(4096)
    with filler.open("ab", buffering=0) as file:
        try:
            while file.write(block) == len(block):
                pass
        except OSError:
            pass
    return filler
