"""The wheel is whole: installed by itself, away from the checkout, it migrates a database and renders nginx."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from services.checkout import ROOT, files


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, unpacked; built from a copy of the committed files."""
    work = tmp_path_factory.mktemp("wheel")
    for file in files():
        target = work / "src" / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(work), "src"]
    subprocess.run(build, cwd=work, check=True, capture_output=True, timeout=120)
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work / "site")
    return work / "site"


def test_the_wheel_brings_what_is_not_python(installed: Path) -> None:
    """DESIGN: `migrations` ships inside the wheel, not as an importable top-level package."""
    assert (installed / "gateway/_migrations/env.py").is_file()
    assert list((installed / "gateway/_migrations/main").glob("*.py"))
    assert list((installed / "gateway/_migrations/keystore").glob("*.py"))
    assert (installed / "gateway/_nginx/fl-gateway.conf.template").is_file()
    assert (installed / "gateway/console/static/style.css").is_file()
    assert (installed / "gateway/console/templates/console.html").is_file()
    assert list((installed / "gateway/translations").glob("*.po"))
    assert not (installed / "migrations").exists()
    assert not (installed / "tests").exists()
    assert all(
        (installed / package / "py.typed").is_file()
        for package in ("aggregation", "audit", "compliance", "gateway")
    )


def test_the_wheel_works_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    """A first command makes and migrates the embedded stores."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLG_")}
    environ["PYTHONPATH"] = str(installed)
    code = "import gateway; print(gateway.__file__); from gateway.cli import main; main()"

    done = subprocess.run(
        [sys.executable, "-c", code, "client", "add", "us", "--role", "auditor", "--json"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed))
    assert "client_secret" in done.stdout
    assert (tmp_path / "fl-gateway.db").is_file()
