"""The page that opens an export package for the person: plain HTML, no script, nothing loaded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Your data</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse }} th, td {{ text-align: left; padding: .3rem .8rem .3rem 0 }}
</style>
</head>
<body>
<h1>Your data</h1>
<p>This package holds what the federated-learning gateway keeps about you, as of {at}.
<code>article-15.json</code> says why it is kept, on which legal basis, for how long, who received it, and
which rights you have.</p>
<table>
<caption>What is in it</caption>
<thead><tr><th scope="col">File</th><th scope="col">Rows</th><th scope="col">GDPR</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
<p>Files that end in <code>.jsonl</code> hold one record a line, in JSON, and open in any text editor.
<code>manifest.json</code> lists every file with its SHA-256; <code>manifest.sig</code> is its Ed25519
signature.</p>
</body>
</html>
"""


def readme_html(files: Sequence[tuple[str, str, int | None]], at: datetime) -> str:
    """The page for the given files: path, article, and rows (None where the file is no table)."""
    lines = [
        f'<tr><td><a href="{escape(path)}">{escape(path)}</a></td>'
        f"<td>{'' if rows is None else rows}</td><td>{escape(article)}</td></tr>"
        for path, article, rows in files
    ]
    return _PAGE.format(at=at.astimezone(UTC).strftime("%d %B %Y, %H:%M UTC"), rows="\n".join(lines))
