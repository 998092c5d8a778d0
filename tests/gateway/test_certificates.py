"""Certificates, end to end: a real ACME server, a real certbot, a real nginx (specification 6.2)."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from services.nginx import Nginx, running_nginx
from services.pebble import Pebble, running_pebble
from services.ports import free_port

from gateway.certificates import (
    CertificateOutcome,
    CertificateSettings,
    JsonValue,
    Outcome,
    Reason,
    Renewal,
    issue_certificate,
    renew_certificates,
)
from gateway.cli import main
from gateway.errors import ConfigError
from gateway.front import Front, render, render_http

NAME = "fl.example.com"


@dataclass(slots=True)
class House:
    """A gateway's TLS front with a certificate authority beside it, and the entries that were recorded."""

    acme: Pebble
    nginx: Nginx
    front: Front
    settings: CertificateSettings
    entries: list[tuple[str, Mapping[str, JsonValue]]]

    def record(self, event_type: str, details: Mapping[str, JsonValue]) -> None:
        self.entries.append((event_type, details))

    def issue(self) -> CertificateOutcome:
        return issue_certificate([NAME], self.settings, self.record)

    def renew(self, *, force: bool = False) -> Renewal:
        return renew_certificates(self.settings, self.record, force=force)

    def start_tls(self) -> None:
        self.nginx.write(render(self.front))
        subprocess.run(self.nginx.command("-s", "reload"), check=True, capture_output=True)
        served_serial(self.front.https_port)

    def event_types(self) -> list[str]:
        return [
            f"{kind}:{details['phase']}" if "phase" in details else kind for kind, details in self.entries
        ]


@contextmanager
def running_house(directory: Path) -> Iterator[House]:
    http_port, certificates = free_port(), directory / "certificates"
    live = certificates / "config" / "live" / NAME
    front = Front(
        server_names=(NAME,),
        upstreams=(f"127.0.0.1:{free_port()}",),
        certificate=live / "fullchain.pem",
        certificate_key=live / "privkey.pem",
        webroot=certificates / "webroot",
        access_log=directory / "access.log",
        error_log=directory / "site-error.log",
        addresses=("127.0.0.1",),
        http_port=http_port,
        https_port=free_port(),
    )
    with (
        running_pebble(directory / "pebble", http_port) as acme,
        running_nginx(directory / "nginx", render_http(front), port=http_port) as nginx,
    ):
        settings = CertificateSettings(
            certificates, acme.acme_url, front.webroot, deploy_hook=nginx.reload_command, timeout_s=60
        )
        yield House(acme, nginx, front, settings, [])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house whose first certificate is issued and served, for all tests of this file."""
    with running_house(tmp_path_factory.mktemp("house")) as house, pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(house.acme.ca_bundle))
        assert house.issue().outcome is Outcome.RENEWED
        house.start_tls()
        yield house


@pytest.fixture
def house(served: House) -> House:
    """The same, with no entry yet and settings that a test may change."""
    return replace(served, entries=[])


def served_serial(port: int, *, other_than: str = "", within_s: float = 30) -> str:
    """The serial number (hex) that the running nginx shows to a new TLS client, once it is another."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    deadline, serial = time.monotonic() + within_s, ""
    while time.monotonic() < deadline:
        try:
            with (
                socket.create_connection(("127.0.0.1", port), 5) as plain,
                context.wrap_socket(plain, server_hostname=NAME) as tls,
            ):
                serial = f"{x509.load_der_x509_certificate(tls.getpeercert(True) or b'').serial_number:x}"
        except OSError:
            serial = ""
        if serial and serial != other_than:
            return serial
        time.sleep(0.05)
    raise AssertionError(f"nginx showed {serial or 'no certificate'}, and nothing else in time")


def processes_with(text: str) -> list[Path]:
    """The processes whose command line holds the text, ours and nginx's left out."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode()
        except OSError:
            continue
        if text in command and "nginx" not in command.partition(" ")[0]:
            found.append(process)
    return found


def test_a_renewed_certificate_is_served_by_the_running_nginx(house: House) -> None:
    """Specification 6.2: the deploy hook makes the running nginx show the new certificate to new clients."""
    before = served_serial(house.front.https_port)

    renewal = house.renew(force=True)

    (outcome,) = renewal.outcomes
    assert outcome.outcome is Outcome.RENEWED
    assert outcome.serial != before
    assert served_serial(house.front.https_port, other_than=before) == outcome.serial
    assert house.event_types() == [
        "intent.certificate:intended",
        "certificate.renewed",
        "intent.certificate:done",
    ]
    assert house.entries[1][1] == {
        "domains": [NAME],
        "serial": outcome.serial,
        "not_after": outcome.not_after,
    }


def test_a_certificate_that_is_not_due_is_left_alone(house: House) -> None:
    """A daily look costs the authority nothing while the certificate is fresh."""
    before = served_serial(house.front.https_port)

    renewal = house.renew()

    assert [outcome.outcome for outcome in renewal.outcomes] == [Outcome.NOT_DUE]
    assert renewal.ok
    assert house.event_types() == ["intent.certificate:intended", "intent.certificate:done"]
    assert served_serial(house.front.https_port) == before


def test_a_failing_authority_leaves_the_old_certificate_in_use(house: House) -> None:
    """A failure is an entry, names the step, repeats none of certbot's words, and takes nothing away."""
    before = served_serial(house.front.https_port)
    house.settings = replace(house.settings, acme_server=f"https://localhost:{free_port()}/dir")

    renewal = house.renew(force=True)

    (outcome,) = renewal.outcomes
    assert (outcome.outcome, outcome.reason, outcome.serial) == (Outcome.FAILED, Reason.CERTBOT, before)
    assert not renewal.ok
    assert house.event_types() == [
        "intent.certificate:intended",
        "certificate.failed",
        "intent.certificate:failed",
    ]
    assert "Connection" not in str(house.entries)
    assert served_serial(house.front.https_port) == before


def test_a_challenge_that_the_authority_cannot_fetch_fails(house: House) -> None:
    """The authority of the tests truly validates: without the webroot in nginx there is no certificate."""
    house.settings = replace(house.settings, webroot=house.settings.directory / "elsewhere")

    outcome = issue_certificate(["other.example.com"], house.settings, house.record)

    assert (outcome.outcome, outcome.serial) == (Outcome.FAILED, None)
    assert "certificate.failed" in house.event_types()


def test_a_failed_reload_is_a_failure_and_is_made_good_at_the_next_look(house: House) -> None:
    """certbot calls a renewal whose deploy hook failed a success, and never runs the hook again: we do."""
    before, good = served_serial(house.front.https_port), house.settings
    house.settings = replace(good, deploy_hook="false")
    failed = house.renew(force=True)
    house.settings = good

    mended = house.renew()

    assert [(o.outcome, o.reason) for o in failed.outcomes] == [(Outcome.FAILED, Reason.DEPLOY_HOOK)]
    assert [o.outcome for o in mended.outcomes] == [Outcome.RENEWED]
    assert served_serial(house.front.https_port, other_than=before) == mended.outcomes[0].serial


def test_a_renewal_whose_entry_was_lost_in_a_crash_gets_it_at_the_next_look(house: House) -> None:
    """Promise 1: no effect without its audit entry, also when the process dies between the two."""

    def dies(event_type: str, details: Mapping[str, JsonValue]) -> None:
        if event_type == "certificate.renewed":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        renew_certificates(house.settings, dies, force=True)

    house.renew()

    assert "certificate.renewed" in house.event_types()


def test_certbot_that_hangs_is_ended(house: House) -> None:
    """An authority that never answers costs one time-out: certbot is ended, and the old certificate stays."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        house.settings = replace(
            house.settings, acme_server=f"https://127.0.0.1:{silent.getsockname()[1]}/dir", timeout_s=2
        )
        (outcome,) = house.renew(force=True).outcomes

    assert (outcome.outcome, outcome.reason) == (Outcome.FAILED, Reason.TIMEOUT)
    assert not processes_with(str(house.settings.directory))


def test_certbot_and_the_hook_see_no_setting_of_the_gateway(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 8: the master key in the environment stays in our process."""
    seen = tmp_path / "environment"
    monkeypatch.setenv("FLG_MASTER_KEY", "canary")
    house.settings = replace(house.settings, deploy_hook=f"env > {seen}")

    house.renew(force=True)

    assert "RENEWED_LINEAGE" in seen.read_text()
    assert "canary" not in seen.read_text()


def test_private_keys_are_readable_by_their_owner_alone(house: House) -> None:
    """Promise 8: private keys on disk are 0600."""
    keys = list((house.settings.directory / "config" / "archive" / NAME).glob("privkey*.pem"))

    modes = {key.stat().st_mode & 0o777 for key in keys}

    assert modes == {0o600}


def event_types_staged(database: Path) -> list[str]:
    """The event types of the entries that wait for their place in a gateway's log."""
    with closing(sqlite3.connect(database)) as connection:
        return [
            json.loads(body)["event_type"] for (body,) in connection.execute("SELECT body FROM audit_pending")
        ]


@pytest.mark.parametrize(
    "domain", ["", "--config-dir=/tmp", "a.example.com,b.example.com", "A.example.com", "host"]
)
def test_a_domain_that_is_none_is_refused_before_certbot_runs(tmp_path: Path, domain: str) -> None:
    """Promise 7: bad input is refused with its name, and nothing is made."""
    settings = CertificateSettings(tmp_path / "certificates", "https://localhost:1/dir", tmp_path / "webroot")

    with pytest.raises(ConfigError):
        issue_certificate([domain], settings, lambda *_: None)

    assert list(tmp_path.iterdir()) == []


def test_the_commands_issue_renew_and_write_it_down(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fl-gateway certs issue|renew` with the settings of the environment; the entries stand in the audit log."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLG_ACME_SERVER", house.acme.acme_url)
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates" / "webroot").symlink_to(house.settings.webroot)
    monkeypatch.setenv("FLG_CERTIFICATE_DEPLOY_HOOK", house.settings.deploy_hook)
    run = CliRunner().invoke

    issued = run(main, ["certs", "issue", "cli.example.com", "--json"])
    renewed = run(main, ["certs", "renew", "--force"])
    refused = run(main, ["certs", "issue", "A B"])
    monkeypatch.setenv("FLG_ACME_SERVER", f"https://localhost:{free_port()}/dir")
    failed = run(main, ["certs", "renew", "--force", "--json"])

    assert json.loads(issued.output)["outcome"] == "renewed"
    assert renewed.output.startswith("cli.example.com: new certificate in use")
    assert [outcome.exit_code for outcome in (issued, renewed, refused, failed)] == [0, 0, 2, 1]
    kinds = event_types_staged(tmp_path / "fl-gateway.db")
    assert (kinds.count("certificate.renewed"), kinds.count("certificate.failed")) == (2, 1)
    assert kinds.count("intent.certificate") == 6


def test_the_daily_run_starts_with_a_look_and_ends_at_sigterm(tmp_path: Path) -> None:
    """Specification 6.2: scheduled daily at 03:00; the stop is clean, a missed hour is made good at the start."""
    program = """
        import schedule, signal, threading
        from gateway.cli.certs import renew_daily
        class Diary(schedule.Scheduler):
            def run_pending(self):
                print(self.jobs[0].at_time, self.jobs[0].unit, self.jobs[0].interval, flush=True)
        schedule.Scheduler = Diary
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        renew_daily(lambda: print("looked", flush=True), stop)
        print("clean", flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    lines = [child.stdout.readline().strip(), child.stdout.readline().strip()]

    child.send_signal(signal.SIGTERM)
    rest, _ = child.communicate(timeout=10)

    assert lines == ["looked", "03:00:00 days 1"]
    assert rest.splitlines()[-1] == "clean"
    assert child.returncode == 0
