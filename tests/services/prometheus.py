"""A private, throwaway Prometheus that scrapes one address; and `promtool`, which judges the form of an answer."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from services.ports import free_port

_READY_WITHIN_S = 30.0
_CONFIG = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs: [{{job_name: fl, static_configs: [{{targets: ["{target}"]}}]}}]
"""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server."""

    url: str

    def await_value(self, query: str) -> dict[str, Any]:
        """The first sample of a query, once there is one."""
        end = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < end:
            if samples := self._samples(query):
                return samples[0]
            time.sleep(0.1)
        raise TimeoutError(query)

    def _samples(self, query: str) -> list[dict[str, Any]]:
        """None, too, while it does not listen yet, and while it replays its log (503 in plain text)."""
        try:
            answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query})
        except httpx.TransportError:
            return []
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return []
        found: list[dict[str, Any]] = answer.raise_for_status().json()["data"]["result"]
        return found


@contextmanager
def prometheus(directory: Path, target: str) -> Iterator[Prometheus]:
    """A server that scrapes `http://TARGET/metrics` until the block ends."""
    port = free_port()
    (directory / "prometheus.yml").write_text(_CONFIG.format(target=target))
    command = ["prometheus", f"--config.file={directory / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={directory / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()


def complaints(text: str) -> str:
    """What `promtool check metrics` finds wrong in an answer; empty if nothing."""
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
