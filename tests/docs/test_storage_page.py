"""What docs/storage.md shows is run as it stands there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from living.home import Home, home_in
from services import s3
from services.checkout import ROOT
from services.pages import blocks

from gateway.config import Config, load_config
from gateway.storage import s3_client
from gateway.storage.blobs import open_blobs
from gateway.storage.s3_upload import PART_BYTES

TEXT = (ROOT / "docs" / "storage.md").read_text("utf-8")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """The stores of a gateway."""
    with home_in(tmp_path / "home") as made:
        yield made


@pytest.mark.parametrize("block", blocks("storage.md", "console"))
def test_each_command_runs_and_finds_nothing_to_mend(home: Home, block: str) -> None:
    """The doctor, in each of its forms."""
    for line in block.splitlines():
        words = line.removeprefix("$ fl-gateway ").split()

        done = home.command(*words)

        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout


def test_the_shown_settings_keep_a_blob_in_the_bucket_as_shown(tmp_path: Path) -> None:
    """Prefix, region, keys from a file, encryption: on a server that insists on the latter."""
    (shown,) = blocks("storage.md", "")
    environ = dict(line.split("=", 1) for line in shown.splitlines())
    secret = tmp_path / "s3"
    secret.write_text(f"{s3.SECRET}\n")
    environ |= {"FLG_S3_ACCESS_KEY_ID": s3.KEY_ID, "FLG_S3_SECRET_ACCESS_KEY_FILE": str(secret)}
    with s3.running("checking") as server:
        server.order(encryption="aws:kms")
        store = open_blobs(load_config(environ | {"FLG_S3_ENDPOINT_URL": server.url}))
        with store.incoming("ab12", bytes(32)) as blob:
            blob.write(b"content")
            blob.keep()
        store.close()
        kept = server.client().list_objects_v2(Bucket=s3.BUCKET)["Contents"]

    assert [one["Key"] for one in kept] == ["hospital-a/blobs/ab12"]


def test_the_figures_on_the_page_are_those_of_the_code() -> None:
    """A number that changes in the code changes on the page."""
    assert f"parts of {PART_BYTES >> 20} MiB" in TEXT
    assert f"given up after {s3_client._READ_S} seconds" in TEXT
    assert s3_client._ATTEMPTS == 3  # "up to twice"
    assert s3_client._PATIENCE_S == 4  # "within four seconds"
    assert s3_client._PROBE_S == 3  # "within three seconds"
    assert Config().blob_grace_s == 3600  # "an hour"


def test_the_folder_lies_as_the_page_says(tmp_path: Path) -> None:
    """`DIR/ab/ab12…`."""
    store = open_blobs(Config(blob_url=f"file:{tmp_path}"))
    with store.incoming("ab12") as blob:
        blob.keep()

    assert (tmp_path / "ab" / "ab12").exists()
