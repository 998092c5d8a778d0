"""What the verifier remarks on: entries that are not as their event type is, and types that it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logbook import SIGNER, chained, checkpoint, entries, lines, zipped

from audit.canonical import JsonValue, canonical
from audit.entry import Entry
from audit.errors import NotCanonical
from audit.verifier.conduct import Conduct
from audit.verifier.verdict import Verdict
from audit.verify import verify_bundle

CHAIN = entries(6)


def changed(entry: Entry, **members: JsonValue) -> Entry:
    told = {**entry.members, **members}
    return Entry(told, canonical(told))


def verify(folder: Path, *bodies: Entry) -> Verdict:
    chain = chained(bodies)
    return verify_bundle(zipped(folder / "b.zip", lines(chain), checkpoint(chain)), vkey=SIGNER.vkey)


def test_entries_of_a_sound_log_give_no_remark(tmp_path: Path) -> None:
    """So that a remark means something."""
    assert verify(tmp_path, *CHAIN).remarks == ()


def test_an_event_type_of_a_later_version_is_remarked_once(tmp_path: Path) -> None:
    """With the first seq and the count: an older verifier reads a newer log."""
    later = [changed(CHAIN[seq], event_type="round.dreamt") for seq in (2, 4)]

    verdict = verify(tmp_path, *CHAIN[:2], later[0], CHAIN[3], later[1], CHAIN[5])

    assert verdict.ok, verdict.text()
    assert verdict.remarks == (
        "2 entries, the first at seq 2, are of an event type that this verifier does not know: 'round.dreamt'",
    )


def test_an_entry_that_its_event_type_does_not_allow_is_remarked(tmp_path: Path) -> None:
    """Decision 0111: it is told and is no failure, which no operator could ever mend."""
    details = {**CHAIN[3].details, "device_name": "ward 7"}
    without = {name: value for name, value in CHAIN[4].details.items() if name != "update_mac"}

    verdict = verify(
        tmp_path, *CHAIN[:3], changed(CHAIN[3], details=details), changed(CHAIN[4], details=without), CHAIN[5]
    )

    assert verdict.ok
    told = "1 entries, the first at seq {}, are not as their event type is: update.accepted: {}"
    assert verdict.remarks == (
        told.format(3, "the detail 'device_name' stands in clear, and its event type does not allow that"),
        told.format(4, "the detail 'update_mac' is missing"),
    )


def test_a_hostile_log_cannot_fill_the_memory_with_oddities() -> None:
    """Another unknown type in each entry: some are named, the others counted together."""
    conduct = Conduct()

    for number in range(1000):
        conduct.watch(changed(CHAIN[0], event_type=f"{number}.{'x' * 10_000}"))

    assert len(conduct.unknown) == 51
    assert sum(seen.count for seen in conduct.unknown.values()) == 1000
    assert sum(map(len, conduct.remarks())) < 20_000


@pytest.mark.parametrize("name", ["\x1b[2J", "\n0 entries", "\u202egnp", "\x9b1m"])
def test_no_entry_sends_commands_to_the_auditor_s_terminal(tmp_path: Path, name: str) -> None:
    """What a log says is shown, never obeyed."""
    text = verify(tmp_path, CHAIN[0], changed(CHAIN[1], event_type=name)).text()

    assert name not in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert text.count("\n") == 4
    assert Verdict(ok=False, checks=(name,), problem=name).text().count("?") == 2 * len(
        [letter for letter in name if not letter.isprintable()]
    )


@given(
    st.dictionaries(
        st.text(st.characters(max_codepoint=127)), st.none() | st.text() | st.integers(), max_size=4
    )
)
def test_no_details_make_the_check_stumble(details: dict[str, JsonValue]) -> None:
    """Whatever stands in an entry, there is at most a remark."""
    conduct = Conduct()

    conduct.watch(changed(CHAIN[0], details=details) if _is_sound(details) else CHAIN[0])

    assert all("update.accepted: " in remark for remark in conduct.remarks())


def _is_sound(details: dict[str, JsonValue]) -> bool:
    try:
        canonical(details)
    except NotCanonical:
        return False
    return True
