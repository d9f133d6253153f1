"""Who may ask: this machine alone, or who has the token; and what every answer carries."""

from __future__ import annotations

import hmac
import json
import sys
import traceback
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "jepalab-{}"  # a browser sends a host's cookies to all its ports: two labs must not take each other's
MOST_BODY = 8 * 2**20
READING = ("GET", "HEAD")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


class _RefusedError(Exception):
    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True)
class Guard:
    """Stands before the app: checks the caller, bounds what it sends, and lets no stack trace out.

    hosts  names under which this server may be called, with their port: a page of another name, made to point here,
           is refused.
    token  what a caller must bring, in a cookie or once in the address; None where only this machine can call.
    """

    app: Asgi
    hosts: Collection[str]
    token: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        has_begun = False

        async def answer(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message = {**message, "headers": _with_headers(message.get("headers", []))}
            await send(message)

        try:
            self._check(scope)
            if self.token is not None and (where := self._brings_token(scope)) is not None:
                await _redirect(answer, where, f"{self._cookie(scope)}={self.token}")
                return
            await self.app(scope, _bounded(receive), answer)
        except _RefusedError as refused:
            if not has_begun:
                await _say(answer, refused.status, str(refused))
        except Exception:  # noqa: BLE001 - the trace is for the one who started the server, not for the caller
            traceback.print_exc(file=sys.stderr)
            if not has_begun:
                await _say(answer, 500, "Something went wrong here; the terminal of `jepalab lab` says what.")

    def _check(self, scope: Scope) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if host.lower() not in self.hosts:
            raise _RefusedError(421, f"This server does not answer for that host. Call it {min(self.hosts)}.")
        if any(part in ("..", ".") for part in scope["path"].split("/")) or "\0" in scope["path"]:
            raise _RefusedError(404, "There is nothing here.")
        if scope["method"] not in READING:
            origin = headers.get("origin")
            if origin is not None and origin.partition("://")[2].lower() != host.lower():
                raise _RefusedError(403, "Another site may not ask this server to do something.")
            if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                raise _RefusedError(403, "Another site may not ask this server to do something.")
            is_json = headers.get("content-type", "").partition(";")[0].strip() == "application/json"
            if scope["method"] in ("POST", "PUT", "PATCH") and not is_json:
                raise _RefusedError(415, "Wanted a body of content-type application/json.")
            if int(length if (length := headers.get("content-length", "0")).isdigit() else 0) > MOST_BODY:
                raise _RefusedError(413, f"Wanted at most {MOST_BODY // 2**20} MiB.")
        if self.token is not None and not self._is_known(headers, scope):
            raise _RefusedError(401, "Wanted the token: open the address that `jepalab lab` printed.")

    def _is_known(self, headers: dict[str, str], scope: Scope) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookie = SimpleCookie()
        name = self._cookie(scope)
        given = [cookie[name].value] if name in cookie else []
        given += [value for key, value in _query(scope) if key == "token"]
        return any(hmac.compare_digest(each.encode(), str(self.token).encode()) for each in given)

    def _cookie(self, scope: Scope) -> str:
        """The name of the cookie that holds the token of this server."""
        return COOKIE.format(scope["server"][1])

    def _brings_token(self, scope: Scope) -> str | None:
        """The same address without the token, where the token came in the address."""
        query = _query(scope)
        if scope["method"] not in READING or not any(name == "token" for name, _ in query):
            return None
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        return "/" + quote(scope["path"].lstrip("/")) + (f"?{rest}" if rest else "")


def _query(scope: Scope) -> list[tuple[str, str]]:
    try:
        return parse_qsl(scope.get("query_string", b"").decode("latin-1"), max_num_fields=200)
    except ValueError:
        return []


def _with_headers(headers: Collection[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    set_already = {name.lower() for name, _ in headers}
    ours = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in set_already]
    return [*(pair for pair in headers if pair[0].lower() != b"server"), *ours]


def _bounded(receive: Receive) -> Receive:
    """Stops a body that is longer than it may be, whatever its headers said."""
    got = 0

    async def bounded() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        if got > MOST_BODY:
            raise _RefusedError(413, f"Wanted at most {MOST_BODY // 2**20} MiB.")
        return message

    return bounded


async def _say(send: Send, status: int, words: str) -> None:
    body = json.dumps({"error": words}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _redirect(send: Send, where: str, cookie: str) -> None:
    """Sends the caller on, with a cookie that no script can read."""
    kept = f"{cookie}; HttpOnly; SameSite=Strict; Path=/"
    headers = [(b"location", where.encode("latin-1", "ignore")), (b"set-cookie", kept.encode())]
    await send({"type": "http.response.start", "status": 303, "headers": [*headers, (b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
