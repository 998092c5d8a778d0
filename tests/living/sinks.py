"""A SIEM sink of each kind, real or written to its vendor's published behaviour, and what each of them has got."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from services import elastic as elastics
from services import splunk as splunks
from services.authority import Authority
from services.elastic import Elastic
from services.ports import free_port
from services.rsyslog import Tls, running_rsyslog, whole_lines
from services.siem_http import Json, listening
from services.splunk import Splunk

Sent = list[tuple[int, int]]
"""What a sink got, in its order: seq and prev_seq of each event."""
Look = Callable[[], Sent]
_DATA = re.compile(r'\[flg@32473 seq="(\d+)" prevSeq="(-?\d+)"\]')


@contextmanager
def every_kind_of_sink(
    directory: Path, splunk: Splunk, elastic: Elastic
) -> Iterator[tuple[str, dict[str, Look]]]:
    """A value of `FLG_SIEM_SINKS` with a sink of each kind, and what each of them has."""
    authority, port, file = Authority(directory / "ca"), free_port(), directory / "siem.jsonl"
    client, server = authority.pair("gateway.example"), authority.pair("siem.example", "127.0.0.1")
    for name, content in {"token": splunks.TOKEN, "key": elastics.KEY}.items():
        (directory / name).write_text(content)
    tls, ca = Tls(authority.ca_file, server, "gateway.example"), f"ca_file={authority.ca_file}"
    with (
        running_rsyslog(directory / "rsyslog", port, tls) as rsyslog,
        listening(splunk, server) as hec_at,
        listening(elastic, server) as elastic_at,
    ):
        chosen = (
            f"file:{file}",
            f"syslog+tls://127.0.0.1:{port}?{ca}&cert_file={client.certificate}&key_file={client.key}",
            f"hec+https://{hec_at}?{ca}&secret_file={directory}/token&timeout=1",
            f"elastic+https://{elastic_at}?{ca}&secret_file={directory}/key&timeout=1&format=raw",
        )
        sinks: dict[str, Look] = {
            "the file": lambda: [_place(json.loads(line)) for line in whole_lines(file)],
            "rsyslog": lambda: [
                (int(m[1]), int(m[2])) for line in rsyslog.lines() if (m := _DATA.search(line))
            ],
            "Splunk": lambda: [_place(event["event"]) for event in splunk.indexed],
            "Elastic": lambda: [_place(document) for document in list(elastic.documents.values())],
        }
        yield ",".join(chosen), sinks


def _place(event: Json) -> tuple[int, int]:
    return event["seq"], event["prev_seq"]
