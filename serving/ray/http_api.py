"""The HTTP API, over a Service. FastAPI makes its OpenAPI page: /docs."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from clip4str import __version__

from .answers import ErrorAnswer, Health, Info, PhotoAnswer, ReadAnswer
from .bearer import is_token
from .refusals import TYPES, Refused, kind_of
from .service import PHOTO, Service
from .uploads import BODY, images_of, size_of

NDJSON = "application/x-ndjson"
_ABOUT = """Words of pictures. `bundle` in every answer names the network that gave it."""
_BEARER = HTTPBearer(auto_error=False, description="the server's token, where it has one")
_log = logging.getLogger("ray.serve")


def make_api(service: Service, token: str | None) -> FastAPI:
    """token: that requests must bring, None for none."""
    api = FastAPI(title="clip4str", version=__version__, description=_ABOUT)
    settings = service.settings

    async def allowed(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
        if token is not None and (given is None or not is_token(given.credentials, token)):
            headers = {"WWW-Authenticate": "Bearer"}
            raise Refused("unauthorized", "a token is needed: Authorization: Bearer TOKEN", headers)

    def errors(*kinds: str) -> dict[int | str, dict[str, Any]]:
        return {TYPES[kind]: {"model": ErrorAnswer, "description": kind} for kind in kinds}

    taking = errors("bad_request", "unauthorized", "too_large", "unsupported_media_type", "unprocessable", "overloaded",
                    "internal", "unavailable")  # fmt: skip
    guarded = [Depends(allowed)]

    @api.post(
        "/read", dependencies=guarded, openapi_extra={"requestBody": BODY}, summary="Words of pictures of a word each",
        responses={**taking, 200: {"model": ReadAnswer, "content": {NDJSON: {"schema": {"type": "string"}}}}},
    )  # fmt: skip
    async def read(request: Request) -> Response:
        """With `Accept: application/x-ndjson` a line for each picture, in order, as soon as it is read:
        `{"index": 0, "bundle": ..., "text": ...}`."""
        with ExitStack() as admission:
            admission.enter_context(service.admitted(size=size_of(request, settings.max_bytes)))
            images = await images_of(request, settings.max_images, settings.max_bytes)
            admission.enter_context(service.admitted(len(images)))
            if NDJSON in request.headers.get("accept", ""):
                return _Stream(_lines(service, images), admission.pop_all())
            return _answer({"bundle": service.version, "words": await service.words(images)})

    @api.post(
        "/read_photo", dependencies=guarded, openapi_extra={"requestBody": BODY}, summary="Words of one whole photo",
        responses={**taking, **errors("not_installed"), 200: {"model": PhotoAnswer}},
    )  # fmt: skip
    async def read_photo(request: Request, least: Annotated[float, Query(ge=0, le=1)] = 0.2) -> Response:
        """least: words of less confidence are left out."""
        if service.detector is None:
            raise Refused("not_installed", "this server reads no photos: it was started without them")
        size = size_of(request, settings.max_bytes)
        with service.admitted(min(PHOTO, settings.max_waiting), size):
            (image,) = await images_of(request, 1, settings.max_bytes)
            return _answer({"bundle": service.version, **await service.photo(image, least)})

    @api.get("/info", dependencies=guarded, responses={**errors("unauthorized"), 200: {"model": Info}})
    async def info() -> Response:
        manifest = service.recognizer.manifest
        return _answer({
            "bundle": service.version, "backend": service.recognizer.backend.name,
            "batch_size": service.recognizer.batch_size, "max_images": settings.max_images,
            "max_bytes": settings.max_bytes, "photos": service.detector is not None,
            "characters": len(manifest.charset),
        })  # fmt: skip

    @api.get("/health", responses={**errors("unavailable"), 200: {"model": Health}})
    async def health() -> Response:
        try:
            service.check()
        except Exception:
            raise Refused("unavailable", "the network cannot read at the moment") from None
        return _answer({"status": "ready", "bundle": service.version})

    def refused(error: Refused) -> Response:
        fault = {"type": error.kind, "message": error.message}
        return _answer({"bundle": service.version, "error": fault}, error.status, error.headers)

    @api.exception_handler(Refused)
    async def _refused(_: Request, error: Refused) -> Response:
        return refused(error)

    @api.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        return refused(Refused(kind_of(error.status_code), str(error.detail)[:200], error.headers))

    @api.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return refused(Refused("unprocessable", f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:300]))

    @api.exception_handler(Exception)
    async def _unforeseen(_: Request, error: Exception) -> Response:
        return refused(Refused("internal", "something went wrong that should not; the server's log has more"))

    api.add_middleware(_Watched, service=service)
    return api


class _Stream(StreamingResponse):
    """Lines that come while they are sent. admission: is given back after the last one, or when the client goes."""

    def __init__(self, lines: AsyncIterator[bytes], admission: ExitStack) -> None:
        super().__init__(lines, media_type=NDJSON)
        self._admission = admission

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with self._admission:
            await super().__call__(scope, receive, send)


async def _lines(service: Service, images: list[bytes]) -> AsyncIterator[bytes]:
    """What goes wrong after the first line is the last line's error."""
    try:
        index = 0
        async for word in service.words_as_read(images):
            yield _json({"index": index, "bundle": service.version, **word}) + b"\n"
            index += 1
    except Refused as error:
        yield _json({"bundle": service.version, "error": {"type": error.kind, "message": error.message}}) + b"\n"
    except Exception:
        _log.exception("while words were streamed")
        fault = {"type": "internal", "message": "something went wrong that should not; the server's log has more"}
        yield _json({"bundle": service.version, "error": fault}) + b"\n"


class _Watched:
    """Counts and times every answer, by the paths that there are."""

    def __init__(self, app: Any, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def told(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, told)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other") if route is not None else "other"
            self._service.figures.answered(path, status, time.monotonic() - began)


def _json(values: Any) -> bytes:
    return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _answer(values: Any, status: int = 200, headers: Any = None) -> Response:
    return Response(_json(values), status, headers, "application/json")
