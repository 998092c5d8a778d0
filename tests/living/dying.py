"""An erasure in a process of its own, which SIGKILL ends at a point that the test names.

The processes are forked from one that has imported the gateway already: a death costs some hundredths of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from types import CodeType, FrameType
from typing import Any

from living.erasing import carry_out

from gateway.config import load_config
from gateway.services import open_services

_OURS = ("/audit/", "/compliance/", "/gateway/", "/sqlalchemy/")
_BORDERS = {"erase": "subject", "delete": "blob_id", "delete_many": "blob_ids"}
"""Functions, with an argument that tells them from others of the name."""
_EFFECTS = ("do_commit", "delete", "add_erased_keys", "bump_epoch", "scrub")
_PATIENCE_S = 250.0  # of a busy machine


@dataclass(frozen=True, slots=True)
class Points:
    """How many points an erasure has: where a place or blobs begin to go, at an effect on a store, at any call."""

    borders: int
    effects: int
    moments: int


@dataclass(frozen=True, slots=True)
class Death:
    """Where to die: at the point of that number (1 is the first) of a kind, which is a name in `Points`."""

    kind: str
    at: int


def run_in_a_child(environment: dict[str, str], case_id: str, death: Death | None = None) -> Points | None:
    """Carry the request out in a new process; how many points it passed, or None if it died.

    Args:
        environment: the gateway's settings.
        case_id: the request.
        death: where to die; nowhere if None.
    """
    context = _forks()
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(environment, case_id, death, theirs))
    child.start()
    theirs.close()
    child.join(_PATIENCE_S)
    if child.exitcode == -signal.SIGKILL:
        return None
    assert child.exitcode == 0, f"the child ended with {child.exitcode}"
    told: Points = ours.recv()
    return told


@cache
def _forks() -> ForkServerContext:
    """The server that forks; it finds what it is to import beforehand by the environment alone."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def _run(environment: dict[str, str], case_id: str, death: Death | None, tell: Connection) -> None:
    services = open_services(load_config(environment), part="worker")
    watch = _Watch(death)
    sys.setprofile(watch)
    carry_out(services, case_id)
    sys.setprofile(None)
    services.close()
    tell.send(Points(**watch.passed))


class _Watch:
    """Counts the points, as Python's profiler tells of each call and return, and dies at one of them."""

    def __init__(self, death: Death | None) -> None:
        self.passed = dict.fromkeys(("borders", "effects", "moments"), 0)
        self._death = death
        self._known: dict[CodeType, frozenset[str]] = {}

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        """One event of the profiler."""
        kinds = self._known.get(frame.f_code)
        if kinds is None:
            kinds = self._known[frame.f_code] = _kinds_of(frame.f_code)
        for kind in kinds:
            if event == "call" or (event == "return" and kind != "borders"):
                self._pass(kind)

    def _pass(self, kind: str) -> None:
        self.passed[kind] += 1
        if self._death == Death(kind, self.passed[kind]):
            os.kill(os.getpid(), signal.SIGKILL)


def _kinds_of(code: CodeType) -> frozenset[str]:
    """Of which kinds of points the calls of a function are."""
    if not any(part in code.co_filename for part in _OURS):
        return frozenset()
    is_border = _BORDERS.get(code.co_name) in code.co_varnames[: code.co_argcount]
    kinds = {"moments": True, "effects": code.co_name in _EFFECTS, "borders": is_border}
    return frozenset(kind for kind, holds in kinds.items() if holds)
