"""What `bench.auth` measures: one server process with the gateway, a view behind its door, and a plain Flask view.

python -m bench.auth_server gunicorn|granian SOCKET
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flask import Flask

from gateway.auth.rules import Proof, Rule, rules_of
from gateway.auth.scopes import Scope
from gateway.config import load_config
from gateway.listening import bind_path
from gateway.web import Web
from gateway.web_granian import GranianWeb

PLAIN, OPEN, GUARDED = "/plain", "/open", "/guarded"
_ANSWER = {"status": "ok"}
Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


def main() -> None:
    """Serve until a signal ends it."""
    server, path = sys.argv[1:]
    config, listening = load_config(), bind_path(Path(path))
    if server == "granian":
        _Granian(config, listening).run()
    else:
        _Gunicorn(config, f"fd://{listening.detach()}").run()


class _Gunicorn(Web):
    def load(self) -> Any:
        return _both(super().load())


class _Granian(GranianWeb):
    def _load(self) -> Any:
        app = super()._load().__self__  # type: ignore[attr-defined]
        return _both(app)


def _both(gateway: Flask) -> Wsgi:
    """The gateway's application with two views more, and the plain one beside it."""
    plain = Flask("plain", static_folder=None)
    plain.add_url_rule(PLAIN, "plain", _view)
    for path, rule in (
        (OPEN, Rule(Proof.NONE)),
        (GUARDED, Rule(Proof.TOKEN, (Scope.TRAINING_PARTICIPATE,))),
    ):
        gateway.add_url_rule(path, path[1:], _view)
        rules_of(gateway)[path[1:]] = rule
    apps = {PLAIN: plain.wsgi_app}

    def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return apps.get(environ["PATH_INFO"], gateway.wsgi_app)(environ, start_response)

    return serve


def _view() -> dict[str, str]:
    return _ANSWER


if __name__ == "__main__":
    main()
