"""The demo as a whole, through the command, with a real gateway process behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from services.checkout import ROOT

from audit.verify import verify_bundle

MEMBERS = {
    "final_accuracy", "epsilon", "delta", "unit", "rounds", "clients", "entries", "verified",
    "tamper_found_at_seq", "erased_client", "verified_after_erasure", "bundle", "report",
}  # fmt: skip


def _demo(*options: str, temporary: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", "demo", *options],
        cwd=temporary,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def _processes_of(folder: Path) -> list[str]:
    """The processes whose working directory is inside the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where = (process / "cwd").readlink()
        except OSError:  # it ended, or is somebody else's
            continue
        if where.is_relative_to(folder) or str(where).startswith(str(folder)):
            found.append(process.name)
    return found


def test_the_demo_shows_everything_it_promises(tmp_path: Path) -> None:
    """Accuracy 0.90 at record-level epsilon 3, the forgery found, the erased silo unreadable, the log sound."""
    done = _demo("--json", temporary=tmp_path)

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == MEMBERS
    assert told["final_accuracy"] >= 0.90
    assert 2.9 < told["epsilon"] <= 3.0
    assert (told["delta"], told["unit"], told["rounds"], told["clients"]) == (1e-5, "record", 12, 10)
    assert told["verified"] is True
    assert told["verified_after_erasure"] is True
    assert 0 < told["tamper_found_at_seq"] < told["entries"]
    assert told["erased_client"] in Path(told["report"]).read_text("utf-8")
    assert verify_bundle(Path(told["bundle"])).ok
    folder = Path(told["report"]).parent
    assert {path.name for path in folder.iterdir()} == {
        "report.html",
        "audit-bundle.zip",
        "audit-bundle-forged.zip",
        "audit-bundle-after-erasure.zip",
        "silo-04-package.zip",
        "silo-04-erasure-receipt.jwt",
    }
    assert _processes_of(folder) == []


def test_without_noise_the_demo_claims_nothing_and_keeps_what_it_is_told_to(tmp_path: Path) -> None:
    """`--no-dp --keep`: no epsilon; the gateway's stores stay, and its settings name them."""
    kept = tmp_path / "kept"

    done = _demo(
        "--json", "--no-dp", "--rounds", "2", "--clients", "3", "--keep", str(kept), temporary=tmp_path
    )

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["epsilon"], told["delta"], told["unit"]) == (None, None, "none")
    assert told["final_accuracy"] > 0.7
    assert (kept / "gateway" / "fl-gateway.toml").exists()
    assert (kept / "gateway" / "keys" / "master.key").stat().st_mode & 0o077 == 0
    assert "No noise was drawn" in (kept / "report.html").read_text("utf-8")


def test_on_a_terminal_the_demo_ends_with_the_paths_of_what_it_wrote(tmp_path: Path) -> None:
    """`--unit client` runs on a terminal with a live table; ten clients or fewer learn little, and it says so."""
    words = f"{sys.executable} -m gateway.cli demo --unit client --rounds 2 --clients 3"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT), "TERM": "xterm"}

    done = subprocess.run(
        ["script", "-qec", words, "/dev/null"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "epsilon spent" in done.stdout
    report = next(tmp_path.glob("fl-gateway-demo-*/report.html"))
    assert str(report) in done.stdout.replace("\r\n", "")
    assert "this unit is for hundreds of clients" in report.read_text("utf-8")
