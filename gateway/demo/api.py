"""The demo's way to the gateway: HTTP and nothing else, and whatever is not as promised stops the demo."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import httpx

from gateway.demo.errors import NotInTime, UnexpectedAnswer

Json = dict[str, Any]
T = TypeVar("T")
_SAID_CHARACTERS = 300


class Api:
    """One gateway as seen over HTTP; may be used by several threads.

    Args:
        base_url: such as `http://127.0.0.1:8080`.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        # Connections end here before the gateway ends them: a request must not meet a closing one.
        limits = httpx.Limits(keepalive_expiry=2.0)
        self._client = httpx.Client(base_url=base_url, timeout=30.0, limits=limits, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def token(self, client_id: str, client_secret: str) -> str:
        """An access token by the client-credentials grant (RFC 6749, section 4.4)."""
        answer = self._client.post(
            "/oauth/token", data={"grant_type": "client_credentials"}, auth=(client_id, client_secret)
        )
        return str(_expect(answer, {200}).json()["access_token"])

    def get(
        self,
        path: str,
        token: str,
        *,
        expect: Collection[int] = (200,),
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """Read something."""
        return _expect(self._client.get(path, headers=_bearer(token), params=params), expect)

    def get_json(self, path: str, token: str, **params: Any) -> Json:
        """Read a JSON object."""
        found: Json = self.get(path, token, params=params).json()
        return found

    def post_json(
        self, path: str, token: str, body: Json | None = None, *, expect: Collection[int] = (200, 201, 202)
    ) -> Json:
        """Send a JSON object and read one."""
        answer = self._client.post(path, headers=_bearer(token), json=body if body is not None else {})
        made: Json = _expect(answer, expect).json()
        return made

    def post_bytes(
        self,
        path: str,
        token: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        expect: Collection[int] = (200, 201, 202),
    ) -> Json:
        """Send a model or an update."""
        kind = {"Content-Type": "application/octet-stream"}
        answer = self._client.post(path, headers={**_bearer(token), **kind, **headers}, content=body)
        made: Json = _expect(answer, expect).json()
        return made


def wait_for(what: str, look: Callable[[], T | None], *, timeout_s: float, pause_s: float = 0.05) -> T:
    """Look again and again until there is something.

    Raises:
        NotInTime: there was nothing for too long.
    """
    end = time.monotonic() + timeout_s
    while (found := look()) is None:
        if time.monotonic() > end:
            raise NotInTime(what, timeout_s)
        time.sleep(pause_s)
    return found


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _expect(answer: httpx.Response, statuses: Collection[int]) -> httpx.Response:
    if answer.status_code not in statuses:
        request = answer.request
        said = answer.text[:_SAID_CHARACTERS]
        raise UnexpectedAnswer(request.method, request.url.path, answer.status_code, said)
    return answer
