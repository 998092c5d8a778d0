"""The page that opens an export package for the person: plain HTML, no script, nothing loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Your data</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse }} caption {{ text-align: left; font-weight: bold }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0 }}
</style>
</head>
<body>
<h1>Your data</h1>
<p>{about}</p>
<table>
<caption>What is in it</caption>
<thead><tr><th scope="col">File</th><th scope="col">What it is</th><th scope="col">Rows</th>
<th scope="col">GDPR</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
<h2>How to read it</h2>
<ul>
{hints}
</ul>
</body>
</html>
"""
_WHOLE = (
    "This package holds what the federated-learning gateway keeps about you, as of {at}. "
    '<a href="article-15.json">article-15.json</a> says why it is kept, on which legal basis, for how long, '
    "who received it, and which rights you have."
)
_TO_TAKE = (
    "This package holds what you gave to the federated-learning gateway, as of {at}, in a form that another "
    "service can read."
)
_HINTS = (
    "Files that end in <code>.json</code> open in any text editor or browser; what each member means stands in "
    "<code>schemas/</code> (JSON Schema 2020-12).",
    "<code>manifest.json</code> lists every file with its SHA-256; <code>manifest.sig</code> is its Ed25519 "
    "signature. <code>fl-gateway privacy verify</code> checks both, without a network.",
    "Where a folder has more than a thousand files, the others lie in <code>part-0002.tar</code> and so on.",
)
_WHOLE_HINTS = (
    "Each table of <code>data/</code> lies there twice, with the same rows: for programs (<code>.json</code>) and "
    "for spreadsheets (<code>.csv</code>). An apostrophe before a cell keeps it from being taken for a formula.",
    "<code>audit/</code> shows what the gateway's log says of you: each entry as it is stored, and beside it what "
    "only you can be shown. Each file of <code>audit/proofs/</code> proves that one entry is in the log.",
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the page's table; `rows` is None where the file is no table."""

    path: str
    title: str
    rows: int | None
    article: str


def readme_html(lines: Sequence[Line], at: datetime, *, is_portable: bool = False) -> str:
    """The page for what the package holds."""
    about = (_TO_TAKE if is_portable else _WHOLE).format(
        at=at.astimezone(UTC).strftime("%d %B %Y, %H:%M UTC")
    )
    hints = _HINTS if is_portable else (*_WHOLE_HINTS, *_HINTS)
    return _PAGE.format(
        about=about,
        rows="\n".join(map(_row, lines)),
        hints="\n".join(f"<li>{hint}</li>" for hint in hints),
    )


def _row(line: Line) -> str:
    path, rows = escape(line.path), "" if line.rows is None else line.rows
    return (
        f'<tr><td><a href="{path}">{path}</a></td><td>{escape(line.title)}</td>'
        f"<td>{rows}</td><td>{escape(line.article)}</td></tr>"
    )
