"""Syslog over TLS (RFC 5425) against a real rsyslog with gnutls, and against peers that are not what they should be."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from services.authority import Authority, Pair
from services.clock import FixedClock
from services.ports import free_port
from services.rsyslog import Tls, running_rsyslog
from services.siem import deliver_all, fill_log, open_log
from sqlalchemy import Engine
from test_siem_syslog import EVENT, await_lines

from audit.siem import SinkDown, parse_sinks
from audit.siem.syslog_sink import SyslogSink
from audit.siem.tls import TlsFiles


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    """A database with an empty log."""
    engine = open_log(sqlite_url)
    yield engine
    engine.dispose()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Both sides trust it."""
    return Authority(tmp_path / "ca")


def files_of(authority: Authority, client: Pair) -> TlsFiles:
    """What the sink shows and trusts."""
    return TlsFiles(str(authority.ca_file), str(client.certificate), str(client.key))


@pytest.mark.parametrize("confirm", ["close", "sent"])
def test_rsyslog_writes_every_entry_that_came_over_tls(
    engine: Engine, authority: Authority, tmp_path: Path, confirm: str
) -> None:
    """RFC 5425: certificates of both sides are checked, and 300 entries are compared one by one."""
    canonical = fill_log(engine, 300)
    client = authority.pair("gateway.example")
    tls = Tls(authority.ca_file, authority.pair("siem.example", "127.0.0.1"), "gateway.example")
    with running_rsyslog(tmp_path / "rsyslog", free_port(), tls) as rsyslog:
        files = f"ca_file={authority.ca_file}&cert_file={client.certificate}&key_file={client.key}"
        (named,) = parse_sinks(f"syslog+tls://127.0.0.1:{rsyslog.port}?{files}&confirm={confirm}")
        failures = deliver_all(engine, named, batch=128 if confirm == "close" else 300)
        lines = await_lines(rsyslog, 300)

    assert (failures, len(lines)) == (0, 300)
    for number, (line, entry) in enumerate(zip(lines, canonical, strict=True)):
        event, wanted = json.loads(line[-1]), json.loads(entry)
        assert (event["seq"], event["prev_seq"]) == (number, number - 1)
        assert {name: event["entry"][name] for name in ("id", "time", "prev", "outcome")} == {
            name: wanted[name] for name in ("id", "time", "prev", "outcome")
        }


def test_an_outage_of_a_tls_receiver_loses_nothing(
    engine: Engine, authority: Authority, tmp_path: Path, clock: FixedClock
) -> None:
    """Promise 6: down, up, down and up again; every entry is there, in order."""
    fill_log(engine, 600)
    port, files = free_port(), files_of(authority, authority.pair("gateway.example"))
    tls = Tls(authority.ca_file, authority.pair("siem.example", "127.0.0.1"), "gateway.example")
    sink = SyslogSink("127.0.0.1", port, tls=files, timeout_s=5)
    (named,) = parse_sinks("file:unused")
    named = type(named)("tls", sink)
    with pytest.raises(AssertionError):
        deliver_all(engine, named, batch=100, tries=3)
    with running_rsyslog(tmp_path / "rsyslog", port, tls), pytest.raises(AssertionError):
        deliver_all(engine, named, batch=100, tries=2)
    with running_rsyslog(tmp_path / "rsyslog", port, tls) as rsyslog:
        deliver_all(engine, named, batch=100)
        lines = await_lines(rsyslog, 600)

    assert [int(line[2]) for line in lines] == list(range(600))


def test_a_client_that_rsyslog_does_not_know_delivers_nothing(authority: Authority, tmp_path: Path) -> None:
    """In TLS 1.3 the server refuses after our handshake is over: that is no delivery."""
    tls = Tls(authority.ca_file, authority.pair("siem.example", "127.0.0.1"), "gateway.example")
    strangers = [
        TlsFiles(str(authority.ca_file)),
        files_of(authority, authority.pair("stranger.example")),
        files_of(authority, Authority(tmp_path / "other", "other").pair("gateway.example")),
    ]
    with running_rsyslog(tmp_path / "rsyslog", free_port(), tls) as rsyslog:
        for files in strangers:
            with pytest.raises(SinkDown):
                SyslogSink("127.0.0.1", rsyslog.port, tls=files, timeout_s=5).deliver([EVENT])
        lines = rsyslog.lines()

    assert lines == []


Behaviour = Callable[[ssl.SSLSocket], object]


@contextmanager
def peer(pair: Pair, behave: Behaviour, highest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Iterator[int]:
    """A TLS server that treats its one connection as the test says; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with warnings_of_old_versions():
        context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, highest

    def serve() -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.settimeout(10)
            with context.wrap_socket(connection, server_side=True) as shaken:
                behave(shaken)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(15)


@contextmanager
def warnings_of_old_versions() -> Iterator[None]:
    """Python warns of old versions, which this peer offers on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def vanish(connection: ssl.SSLSocket) -> None:
    """Gone in the middle of a frame, as a machine that is switched off and on again."""
    connection.recv(100)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def leave(connection: ssl.SSLSocket) -> None:
    """Gone in order in the middle of a frame."""
    connection.recv(100)


def hang(connection: ssl.SSLSocket) -> None:
    """Reads all of it and never ends."""
    while connection.recv(65_536):
        pass
    while socket.socket.recv(connection, 1):  # below TLS: until the other side has given up and gone
        pass


def read_slowly(connection: ssl.SSLSocket) -> None:
    """Reads all of it, and takes its time."""
    while connection.recv(20_000):
        threading.Event().wait(0.01)


@pytest.mark.parametrize("behave", [vanish, leave, hang])
def test_a_peer_that_did_not_read_to_the_end_took_nothing(authority: Authority, behave: Behaviour) -> None:
    """A TLS peer that vanishes mid-frame, leaves early or hangs: the batch comes again."""
    server = authority.pair("siem.example", "127.0.0.1")
    with peer(server, behave) as port, pytest.raises(SinkDown):
        SyslogSink("127.0.0.1", port, tls=TlsFiles(str(authority.ca_file)), timeout_s=1).deliver(
            [EVENT] * 500
        )


@pytest.mark.parametrize("highest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_slow_peer_is_waited_for(authority: Authority, highest: ssl.TLSVersion) -> None:
    """What it reads to our close_notify is delivered, with either version of TLS."""
    server = authority.pair("siem.example", "127.0.0.1")
    with peer(server, read_slowly, highest) as port:
        sink = SyslogSink("127.0.0.1", port, tls=TlsFiles(str(authority.ca_file)), timeout_s=10)
        delivery = sink.deliver([EVENT] * 500)

    assert delivery.answer == "the receiver read the batch to its end and closed"


def test_tls_1_1_is_not_spoken(authority: Authority) -> None:
    """TLS 1.2 or later."""
    server = authority.pair("siem.example", "127.0.0.1")
    with peer(server, leave, ssl.TLSVersion.TLSv1_1) as port, pytest.raises(SinkDown, match="TLS failed"):
        SyslogSink("127.0.0.1", port, tls=TlsFiles(str(authority.ca_file)), timeout_s=5).deliver([EVENT])


@pytest.mark.parametrize(
    ("name", "addresses", "ca", "said"),
    [
        ("siem.example", ("127.0.0.1",), "other", "unable to get local issuer"),
        ("siem.example", ("127.0.0.2",), "authority", "IP address mismatch"),
        ("siem.example", (), "", "unable to get local issuer"),
    ],
)
def test_a_receiver_with_a_wrong_certificate_gets_no_event(
    authority: Authority, tmp_path: Path, name: str, addresses: tuple[str, ...], ca: str, said: str
) -> None:
    """Another authority, another address, and an authority that the machine does not know."""
    authorities = {"other": Authority(tmp_path / "other", "other"), "authority": authority}
    files = TlsFiles(str(authorities[ca].ca_file) if ca else "")
    with peer(authority.pair(name, *addresses), leave) as port, pytest.raises(SinkDown, match=said):
        SyslogSink("127.0.0.1", port, tls=files, timeout_s=5).deliver([EVENT])


def test_files_that_cannot_be_used_are_an_outage(tmp_path: Path) -> None:
    """A missing or spoilt PEM file delays events; it is read anew at each try."""
    (tmp_path / "spoilt.pem").write_text("no PEM")
    for name in ("missing.pem", "spoilt.pem"):
        with pytest.raises(SinkDown, match="not a PEM file"):
            SyslogSink("127.0.0.1", 1, tls=TlsFiles(str(tmp_path / name))).deliver([EVENT])
