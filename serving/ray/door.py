"""At the door of Ray's proxy, or with HAProxy of a replica: refuses what is too much as soon as a request's head is
there. Ray itself takes most of a request's time before anything of ours can refuse it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

CALLBACK, PATH = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", f"{__name__}:middlewares"  # Ray's, and what it is to be
VARIABLE = "CLIP4STR_SERVE_DOOR"  # requests that a proxy lets in at once; a replica has its own `max_waiting`
_FAULT = {"type": "overloaded", "message": "too many pictures are waiting; try again soon"}
_BODY = json.dumps({"bundle": "", "error": _FAULT}).encode()  # which network would have read it is not known here
_HEADERS = [
    (b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode()), (b"retry-after", b"1"),
]  # fmt: skip


class Door:
    """An ASGI application around another. most: requests with pictures that may be in it at once, beside those whose
    bodies are still on their way, which take nobody's time; None for any. refused: told of each."""

    most: int | None = None  # of all doors of this process

    def __init__(self, app: Any, refused: Callable[[], None]) -> None:
        self._app, self._refused, self._inside = app, refused, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.most is None or scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._inside >= self.most:
            self._refused()
            await send({"type": "http.response.start", "status": 429, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": _BODY})
            return
        coming = inside = True

        def left() -> None:
            nonlocal inside
            self._inside -= inside
            inside = False

        async def received() -> Any:
            nonlocal coming
            if not (coming and inside):
                return await receive()
            self._inside -= 1
            try:
                message = await receive()  # at once where it is there
            finally:
                self._inside += 1
            coming = message.get("more_body", False)
            if message["type"] == "http.disconnect":
                left()  # there is nothing to read
            return message

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                left()  # before: who has its answer may ask again
            await send(message)

        self._inside += 1
        try:
            await self._app(scope, received, sent)
        finally:
            left()


def middlewares() -> list[Any]:
    """What Ray calls in every process that takes HTTP."""
    from ray.util.metrics import Counter
    from starlette.middleware import Middleware

    given = os.environ.get(VARIABLE, "")
    if Door.most is None and given.isascii() and given.isdecimal():
        Door.most = int(given)
    refused = Counter("clip4str_refused_at_door", "Requests refused before their bodies were read")
    return [Middleware(Door, refused.inc)]
