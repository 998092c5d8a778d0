"""A small disk of a test's own: a tmpfs that can be filled to the last page and emptied again."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PAGE_BYTES = 4096
_WRITE_BYTES = 64 * _PAGE_BYTES


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A mounted tmpfs; `fill` takes all room but what is to be left."""

    directory: Path

    @property
    def free_bytes(self) -> int:
        """How much room there is."""
        found = os.statvfs(self.directory)
        return found.f_bavail * found.f_frsize

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take the room; whoever writes meanwhile may take the rest."""
        with self._ballast.open("ab", buffering=0) as file:
            while (room := self.free_bytes - leave_bytes) > 0:
                try:
                    file.write(bytes(min(room, _WRITE_BYTES)))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return

    def make_room(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self.directory / "ballast"


@contextmanager
def small_disk(directory: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount a tmpfs on the directory: as root here, else in a user namespace, where it is seen through /proc."""
    directory.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(directory)]
    if os.geteuid() == 0:
        _run(mount)
        try:
            yield SmallDisk(directory)
        finally:
            _run(["umount", "--lazy", str(directory)])
    else:
        with _in_namespace(mount) as root:
            yield SmallDisk(root / directory.relative_to("/"))


@contextmanager
def _in_namespace(mount: list[str]) -> Iterator[Path]:
    """A process in a mount namespace of its own; its root directory as others see it."""
    script = '"$@" && echo mounted && exec sleep infinity'
    command = ["setpriv", "--pdeathsig=KILL", "--", "unshare", "-rm", "sh", "-c", script, "sh", *mount]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "mounted\n":
                raise RuntimeError(_NO_DISK)
            yield Path(f"/proc/{process.pid}/root")
        finally:
            process.kill()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{_NO_DISK}: {done.stderr.strip()}")


_NO_DISK = "the tests of a full disk mount a tmpfs: run them as root, or allow unprivileged user namespaces"
