"""Files that are written in steps: the bytes are those that came, and a full disk is told."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from services.small_disk import small_disk

from gateway.storage.steady_file import STEP_BYTES, SteadyFile

_PIECE = bytes(range(256)) * 4099  # no divisor of a step


@pytest.mark.parametrize("size_bytes", [0, 1, STEP_BYTES, STEP_BYTES + 1, 11 * STEP_BYTES + 12_345])
def test_the_file_holds_what_was_written_and_takes_no_room_beyond(tmp_path: Path, size_bytes: int) -> None:
    """Room that was taken ahead is given back at the end, also where the file ends on a border."""
    path = tmp_path / "file"
    file = SteadyFile(path)

    _write(file, size_bytes)
    file.finish()

    whole = _PIECE * (size_bytes // len(_PIECE) + 1)
    assert path.read_bytes() == whole[:size_bytes]
    assert path.stat().st_blocks * 512 <= size_bytes + STEP_BYTES


def test_bytes_that_fit_are_taken_though_the_room_ahead_is_not_there(tmp_path: Path) -> None:
    """A disk with little more than the file takes it; one with less says so."""
    with small_disk(tmp_path / "disk", 3 * STEP_BYTES) as disk:
        path = disk.directory / "file"
        file = SteadyFile(path)
        _write(file, 2 * STEP_BYTES)
        disk.fill()

        with pytest.raises(OSError, match="No space left"):
            _write(file, 2 * STEP_BYTES)

        with suppress(OSError):
            file.close()


def test_a_file_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    """Names of blobs are random: one that exists is a mistake."""
    (tmp_path / "file").write_text("mine")

    with pytest.raises(FileExistsError):
        SteadyFile(tmp_path / "file")


def _write(file: SteadyFile, size_bytes: int) -> None:
    while size_bytes:
        file.write(_PIECE[:size_bytes])
        size_bytes -= len(_PIECE[:size_bytes])
