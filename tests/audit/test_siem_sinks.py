"""How `FLG_SIEM_SINKS` is read: any number of sinks of five kinds, and no secret in a URL or in a text."""

from __future__ import annotations

import re

import pytest

from audit.siem import BadSink, parse_sinks


def test_sinks_are_read_from_one_setting() -> None:
    """DESIGN: FLG_SIEM_SINKS is any number of sinks, with commas; each has a cursor under its URL without options."""
    sinks = parse_sinks(
        "file:./siem.jsonl, syslog+tcp://[::1]:601?confirm=sent,syslog+tcp://Siem.example:601,"
        "syslog+tls://siem.example?ca_file=ca.pem&cert_file=me.pem&key_file=me.key&timeout=5,"
        "hec+https://splunk.example/collector/?secret_file=token&index=fl&format=ocsf,"
        "elastic+https://elastic.example?secret_file=key,elastic+https://elastic.example?index=mine"
    )

    assert [(sink.name, sink.format, sink.secret_files) for sink in sinks] == [
        ("file:./siem.jsonl", "raw", ()),
        ("syslog+tcp://[::1]:601", "raw", ()),
        ("syslog+tcp://siem.example:601", "raw", ()),
        ("syslog+tls://siem.example:6514", "raw", ("me.key",)),
        ("hec+https://splunk.example:8088/collector?index=fl", "ocsf", ("token",)),
        ("elastic+https://elastic.example:9200", "ecs", ("key",)),
        ("elastic+https://elastic.example:9200?index=mine", "ecs", ()),
    ]
    assert parse_sinks("") == []


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("splunk://x", "unknown kind of sink, 'splunk'"),
        ("syslog+tcp://host", "syslog+tcp://HOST:PORT"),
        ("syslog+tcp://host:99999", "syslog+tcp://HOST:PORT"),
        ("syslog+tcp://host:601/path", "a path"),
        ("syslog+tcp://host:601?confirm=maybe", "close"),
        ("syslog+tcp://host:601?ca_file=x", "unknown option 'ca_file'"),
        ("syslog+tcp://user:canary@host:601", "secret_file"),
        ("syslog+tls://host?key_file=x", "cert_file"),
        ("syslog+tls://host?timeout=never", "seconds"),
        ("syslog+tls://host?timeout=0", "seconds"),
        ("file:", "a path"),
        ("file://host/x", "a path"),
        ("file:a?format=cef", "raw, ocsf, ecs"),
        ("file:a?canary=canary", "unknown option"),
        ("file:a?format=raw&format=raw", "twice"),
        ("file:a,file:a", "twice"),
        ("file:" + "a" * 300, "255"),
        ("hec+https://host", "secret_file"),
        ("hec+https://host?secret_file=x&ack=never", "required"),
        ("hec+https://x:canary@host?secret_file=x", "secret_file"),
        ("hec+http://host?secret_file=x", "+https"),
        ("hec+https://host?secret_file=x&token=canary", "unknown option 'token'"),
        ("elastic+http://10.0.0.1", "+https"),
        ("elastic+https://", "a host"),
        ("elastic+https://[canary", "no URL"),
        ("elastic+https://two..dots", "a host"),
        ("syslog+tcp://" + "a" * 70 + ":601", "a host"),
        ("canary", "file:PATH"),
    ],
)
def test_a_wrong_sink_is_refused_with_the_remedy(setting: str, said: str) -> None:
    """The operator reads what is wrong and what to write, and no credential is repeated."""
    with pytest.raises(BadSink, match=re.escape(said)) as refused:
        parse_sinks(setting)

    assert "=canary" not in str(refused.value)
    assert ":canary" not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_plain_http_is_for_this_machine(host: str) -> None:
    """An agent on the loopback needs no TLS."""
    (hec, elastic) = parse_sinks(f"hec+http://{host}?secret_file=x,elastic+http://{host}:1")

    assert (hec.name, elastic.name) == (f"hec+http://{host}:8088", f"elastic+http://{host}:1")
