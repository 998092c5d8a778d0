"""`fl-gateway privacy report|records`: evidence for authorities, as text, JSON or a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from compliance.evidence.model_report import report_page, report_text
from compliance.evidence.processing_record import record_page
from gateway.cli.opening import open_console

Page = Callable[[Mapping[str, Any]], str]
_PAGES, _JSON = (".html", ".htm"), ".json"
_OUTPUT = click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file: .html or .json."
)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.command()
@click.argument("version")
@_OUTPUT
@_AS_JSON
def report(*, version: str, output: Path | None, as_json: bool) -> None:
    """Report what model VERSION may claim, with the ledger, proofs from the log, and a signature."""
    from gateway.api.reports import report_of  # the API takes its time to load, which no other command needs

    with open_console() as services:
        found = report_of(services, version)
    _hand_over(found, output, report_page, as_json=as_json, text=report_text(found))


@click.command()
@_OUTPUT
@_AS_JSON
def records(*, output: Path | None, as_json: bool) -> None:
    """Write the record of processing activities (Art. 30), made from the data map."""
    from gateway.api.records import record_of

    with open_console() as services:
        found = record_of(services)
    _hand_over(found, output, record_page, as_json=as_json, text=_record_text(found))


def _hand_over(
    found: Mapping[str, Any], output: Path | None, page: Page, *, as_json: bool, text: str
) -> None:
    if output is None:
        click.echo(_json(found) if as_json else text)
        return
    if output.suffix not in (*_PAGES, _JSON):
        raise click.UsageError("the file's name must end with .html or .json")
    output.write_text(_json(found) if output.suffix == _JSON else page(found), "utf-8")
    click.echo(_json({"written": str(output)}) if as_json else f"written: {output}")


def _json(found: Mapping[str, Any]) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False)


def _record_text(record: Mapping[str, Any]) -> str:
    lines = [
        f"controller: {record['controller']}",
        f"data-protection officer: {record['data_protection_officer']}",
        *(f"purpose: {one}" for one in record["purposes"]),
        *(f"recipient: {one}" for one in record["recipients"]),
        *(
            f"category: {one['category']} ({one['legal_basis']}), kept {one['retention']}"
            for one in record["categories"]
        ),
    ]
    return "\n".join(lines)
