"""The verifier as one file, and as a folder with its files alone: it needs Python and `cryptography`, nothing else."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from logbook import SIGNER, checkpoint, entries, lines, zipped

from audit.single_file import verifier_file, verifier_sources

CHAIN = entries(4)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `cryptography` and what it imports, and no other package."""
    folder = tmp_path_factory.mktemp("packages")
    for name in ("cryptography", "_cffi_backend", "cffi"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            found = Path(spec.origin)
            found = found.parent if spec.submodule_search_locations else found
            (folder / found.name).symlink_to(found)
    return folder


def run(packages: Path, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Python without site-packages, environment and current folder, but for these packages."""
    start = f"import runpy, sys; sys.path.insert(0, {str(packages)!r}); sys.argv.pop(0); {program}"
    command = [sys.executable, "-I", "-S", "-c", start, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return zipped(tmp_path / "log.zip", lines(CHAIN), checkpoint(CHAIN))


def test_the_one_file_verifies_a_bundle(tmp_path: Path, packages: Path, bundle: Path) -> None:
    """`python verify.pyz BUNDLE.zip` with the same options and exit codes."""
    (tmp_path / "verify.pyz").write_bytes(verifier_file())
    (tmp_path / "vkey").write_text(SIGNER.vkey)
    program = "runpy.run_path(sys.argv[0], run_name='__main__')"

    good = run(packages, program, tmp_path / "verify.pyz", bundle, "--vkey", tmp_path / "vkey", "--json")
    zipped(bundle, lines(CHAIN[:2] + CHAIN[3:]), checkpoint(CHAIN))
    bad = run(packages, program, tmp_path / "verify.pyz", bundle)
    wrong = run(packages, program, tmp_path / "verify.pyz")

    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["size"] == 4
    assert bad.returncode == 1
    assert "NOT VERIFIED at seq 2" in bad.stdout
    assert wrong.returncode == 2


def test_a_folder_with_its_files_alone_verifies_a_bundle(
    tmp_path: Path, packages: Path, bundle: Path
) -> None:
    """`python -m audit.verify`: the list of files is complete."""
    for name, source in verifier_sources().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(source)
    program = "sys.path.insert(0, sys.argv[0]); runpy.run_module('audit.verify', run_name='__main__', alter_sys=True)"

    done = run(packages, program, tmp_path, bundle)

    assert (done.returncode, done.stderr) == (0, "")
    assert "VERIFIED: 4 entries" in done.stdout


def test_without_cryptography_it_says_what_to_do(tmp_path: Path, bundle: Path) -> None:
    """One sentence, no traceback."""
    (tmp_path / "verify.pyz").write_bytes(verifier_file())
    (tmp_path / "nothing").mkdir()

    done = run(
        tmp_path / "nothing",
        "runpy.run_path(sys.argv[0], run_name='__main__')",
        tmp_path / "verify.pyz",
        bundle,
    )

    assert done.returncode == 1
    assert done.stderr == "verify.pyz: needs the package cryptography: pip install cryptography\n"


def test_equal_sources_give_equal_bytes() -> None:
    """Two people compare the file by its hash; no time and no compression makes it differ."""
    with ZipFile(io.BytesIO(verifier_file())) as archive:
        members = archive.infolist()

    assert verifier_file() == verifier_file()
    assert {(member.date_time, member.compress_type) for member in members} == {((1980, 1, 1, 0, 0, 0), 0)}


def test_it_holds_exactly_what_the_verifier_imports() -> None:
    """Nothing that needs a database is in it, and nothing is left out."""
    program = (
        "import sys, audit.verify; print(*sorted(module.__file__ for name, module in sys.modules.items()"
        " if name.split('.')[0] == 'audit'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name[name.rindex("/audit/") + 1 :] for name in done.stdout.split()}

    assert verifier_sources().keys() == loaded
    assert not loaded & {"audit/store.py", "audit/tables.py", "audit/sequencer.py", "audit/bundle.py"}
