"""Run by a test as a process of its own: packs the data of a client with many participations, and tells the memory.

    python big_package.py FOLDER COUNT

It packs once before there are many, so that what is loaded or cached once does not count.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from participations import add_participations, subject_of
from services.clock import FixedClock
from whole import config_in, opened, sqlite_in

from audit.draft import Personal
from compliance.requests.cases import RequestType
from gateway.auth.clients import add_client
from gateway.auth.scopes import Role
from gateway.privacy import privacy_desk
from gateway.services import Services

OFFICER = Personal("system", "officer")


def main(folder: Path, count: int) -> None:
    """Print peak memory before and after, and what was packed."""
    with opened(config_in(folder, sqlite_in(folder)), FixedClock()) as services:
        client_id = add_client(services, "many", Role.PARTICIPANT).client_id
        add_participations(services, client_id, 1000)
        pack(services, client_id)
        add_participations(services, client_id, count)
        before, began = peak(), time.monotonic()
        size_bytes = pack(services, client_id)
        told = {
            "before": before,
            "after": peak(),
            "size_bytes": size_bytes,
            "seconds": time.monotonic() - began,
        }
        print(json.dumps(told))


def pack(services: Services, client_id: str) -> int:
    """Carry out an access request; the package's size."""
    desk = privacy_desk(services)
    case = desk.open(RequestType.ACCESS, subject_of(services, client_id), requested_by=OFFICER)
    done = desk.run(desk.approve(case.id, by=OFFICER).id)
    assert done.package_bytes, done.last_error
    return done.package_bytes


def peak() -> int:
    """The most memory that this program ever had, in bytes; `ru_maxrss` begins with that of the process before it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
