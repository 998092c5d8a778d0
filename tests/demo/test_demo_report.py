"""The demo's report: one page that needs nothing else, says what was so, and escapes what it is told."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gateway.demo.claim import privacy_claim
from gateway.demo.curve import draw
from gateway.demo.errors import ClaimFailed
from gateway.demo.officer import Field
from gateway.demo.outcome import Audit, DemoOutcome, Erasure, RoundOutcome, Training
from gateway.demo.plan import Unit, make_plan
from gateway.demo.report import render
from gateway.demo.run import insist

EVIL = "<script>alert('x')</script>"
VOID = {"meta", "link", "br", "hr", "img", "input"}


class _Checker(HTMLParser):
    """Insists that every tag is closed in order, and gathers tags and attributes."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def _outcome(unit: Unit = Unit.RECORD, *, words: str = "silo-04") -> DemoOutcome:
    plan = make_plan(unit, rounds=3, clients=10, epsilon=3)
    spent = [None] * 3 if unit is Unit.NONE else [1.6, 2.4, 2.99]
    rounds = tuple(
        RoundOutcome(index + 1, 10, 0.5 + 0.15 * index, 1.0, spent[index], 0.5) for index in range(3)
    )
    audit = Audit(
        bundle=Path("/tmp/audit-bundle.zip"),
        entries=120,
        is_verified=True,
        receipts=30,
        checkpoint=f"fl-gateway/{words}\n120\nroot\n",
        vkey="vkey",
        forged=Path("/tmp/forged.zip"),
        forged_seq=101,
        forged_event="round.completed",
        found_at_seq=101,
        problem=f"wrong leaf {words}",
    )
    erasure = Erasure(
        silo=words,
        client_id="11111111-2222-3333-4444-555555555555",
        package=Path("/tmp/package.zip"),
        files=({"path": "client.json"},),
        before=(Field(7, "update.accepted", "actor", words, is_readable=True),),
        after=(Field(7, "update.accepted", "actor"),),
        receipt=Path("/tmp/receipt.jwt"),
        receipt_payload={"left": 0, "exceptions": [{"what": words, "count": 2, "basis": words}]},
        token_status=401,
        bundle=Path("/tmp/after.zip"),
        entries=140,
        is_verified=True,
    )
    training = Training("model", "1.3.0", rounds, {"epsilon": "2.99", "note": words})
    return DemoOutcome(plan, ((words, 100),), training, audit, erasure, Path("/tmp/report.html"), 42.0)


@pytest.mark.parametrize("unit", list(Unit))
def test_the_report_is_a_well_formed_page_without_script_or_network(unit: Unit) -> None:
    """Self-contained: no script, no link, no address that a browser would fetch."""
    page = render(_outcome(unit))

    checker = _Checker()
    checker.feed(page)
    checker.close()

    assert checker.open == []
    assert not checker.tags & {"script", "link", "img", "iframe", "object", "embed", "a", "form"}
    assert not [
        name for name, _ in checker.attributes if name in ("src", "href", "style") or name[:2] == "on"
    ]
    assert "http" not in page.replace("http-equiv", "")
    assert "url(" not in page
    assert "@import" not in page


@pytest.mark.parametrize("unit", list(Unit))
def test_each_figure_is_valid_xml_that_a_screen_reader_can_tell(unit: Unit) -> None:
    """An accuracy curve always, an epsilon curve where there is a claim; each named and described."""
    page = render(_outcome(unit))

    figures = [f"<svg{rest.partition('</svg>')[0]}</svg>" for rest in page.split("<svg")[1:]]
    trees = [ElementTree.fromstring(figure) for figure in figures]  # noqa: S314 - our own page

    assert len(trees) == (1 if unit is Unit.NONE else 2)
    for tree in trees:
        assert tree.get("role") == "img"
        assert {child.get("id") for child in tree if child.tag in ("title", "desc")} == set(
            (tree.get("aria-labelledby") or "").split()
        )
        assert len(tree.findall("circle")) == 3


def test_whatever_the_report_is_told_is_escaped() -> None:
    """Names, receipts and notes come from outside."""
    page = render(_outcome(words=EVIL))

    assert EVIL not in page
    assert "&lt;script&gt;" in page


def test_a_failed_check_is_said_and_not_hidden() -> None:
    """The page tells what was found, also when that is bad."""
    outcome = _outcome()
    bad = replace(outcome, audit=replace(outcome.audit, is_verified=False, found_at_seq=None, problem=""))

    page = render(bad)

    assert "they do NOT verify" in page
    assert "did NOT find it" in page


def test_the_claim_of_unit_record_names_whom_it_trusts() -> None:
    """RULES 11: unit, adjacency, planned count, delta, mechanism, and the trust in the silos' clipping."""
    plan = make_plan(Unit.RECORD, rounds=12, clients=10, epsilon=3)

    said = {sentence.aspect: sentence.said for sentence in privacy_claim(plan, 2.98)}

    assert "add or remove one record" in said["Adjacency"]
    assert "1440" in said["Planned count"]
    assert "delta 1e-05" in said["Spent"]
    assert "discrete Gaussian" in said["Mechanism"]
    assert "trusted to clip" in said["Trust"]
    assert "several records" in said["Not covered"]


@pytest.mark.parametrize(
    ("unit", "limit"),
    [(Unit.RECORD, "not of the silo as a whole"), (Unit.NONE, "nothing bounds what they reveal")],
)
def test_an_erasure_does_not_claim_that_models_forget(unit: Unit, limit: str) -> None:
    """Promise 9 again: a claim about single records says nothing about a whole silo."""
    page = render(_outcome(unit))

    assert "cannot forget the silo" in page
    assert limit in page


def test_without_noise_there_is_no_claim() -> None:
    """Promise 9: a claim is never stronger than the run was."""
    plan = make_plan(Unit.NONE, rounds=12, clients=10, epsilon=3)

    said = privacy_claim(plan, None)

    assert said[0].said.startswith("None")
    assert not [sentence for sentence in said if "epsilon" in sentence.said]


def test_a_curve_places_values_between_its_axes() -> None:
    """Higher values stand higher, within the frame, and a single round stands in the middle."""
    drawn = draw("a", "A", [0.0, 0.5, 1.0], top=1.0, steps=5, decimals=2)
    single = draw("a", "A", [0.5], top=1.0, steps=5, decimals=2)

    heights = [point.y for point in drawn.points]

    assert heights == sorted(heights, reverse=True)
    assert (heights[0], heights[-1]) == (drawn.y_ticks[0].at, drawn.y_ticks[-1].at)
    assert single.points[0].x == pytest.approx((48 + 640 - 16) / 2)


def test_the_summary_has_exactly_the_promised_members() -> None:
    """`demo --json`: the members that scripts may rely on."""
    summary = _outcome().summary()

    assert list(summary) == [
        "final_accuracy", "epsilon", "delta", "unit", "rounds", "clients", "entries", "verified",
        "tamper_found_at_seq", "erased_client", "verified_after_erasure", "bundle", "report",
    ]  # fmt: skip
    assert summary["epsilon"] == 2.99


def test_a_demo_that_did_not_show_what_it_set_out_to_show_fails() -> None:
    """Each broken promise is named; a good run passes."""
    good = _outcome()
    audit = replace(good.audit, is_verified=False, found_at_seq=7)
    still_readable = replace(good.erasure.before[0])
    erasure = replace(good.erasure, after=(still_readable,), token_status=200, is_verified=False)
    overspent = replace(good.training.rounds[-1], epsilon_spent=3.01)
    training = replace(good.training, rounds=(*good.training.rounds[:-1], overspent))

    insist(good)
    with pytest.raises(ClaimFailed) as caught:
        insist(replace(good, audit=audit, erasure=erasure, training=training))

    assert str(caught.value).count(";") == 5
    for reason in (
        "does not verify",
        "changed byte",
        "after the erasure",
        "still be read",
        "token",
        "more epsilon",
    ):
        assert reason in str(caught.value)
