"""Pictures out of a request: files of a form, base64 in JSON, or the body itself. Bounded before anything is held."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import MutableMapping
from typing import Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile

from .refusals import Refused

_FIELDS = 16  # of a form, beside files, to be named as such
_SLACK = 16  # values in JSON, beside pictures, to be named as such


class JsonImages(BaseModel):
    """The body of a request in JSON."""

    model_config = ConfigDict(extra="forbid")

    images: list[str] = Field(description="encoded pictures (JPEG, PNG, ...), each in base64", min_length=1)


_FILE = {"type": "string", "format": "binary"}
BODY: dict[str, Any] = {  # for OpenAPI
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "properties": {"files": {"type": "array", "minItems": 1, "items": _FILE}},
            }
        },
        "application/json": {"schema": JsonImages.model_json_schema()},
        "image/*": {"schema": _FILE},
    },
}


def size_of(request: Request, most: int) -> int:
    """Bytes that a request says it has, or `most` where it does not say. Raises Refused."""
    length = request.headers.get("content-length", str(most))
    if not (length.isascii() and length.isdecimal()) or len(length) > 20:
        raise Refused("bad_request", "Content-Length is no number")
    if int(length) > most:
        raise Refused("too_large", f"a request may have {most:,} bytes")
    return int(length)


async def images_of(request: Request, most_images: int, most_bytes: int) -> list[bytes]:
    """Encoded pictures, one or more. Raises Refused."""
    bounded = Request(request.scope, _counted(request.receive, most_bytes))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        images = await _form(bounded, most_images)
    elif kind == "application/json":
        images = await asyncio.to_thread(_json, await bounded.body(), most_images)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        images = [await bounded.body()]
    else:
        raise Refused("unsupported_media_type", "a request is multipart/form-data, application/json or image/...")
    if not images:
        raise Refused("unprocessable", "no picture came")
    _check_count(len(images), most_images)
    return images


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise Refused("too_large", f"a request may have {most:,} pictures, not {count:,}")


async def _form(request: Request, most_images: int) -> list[bytes]:
    async with request.form(max_files=most_images + 1, max_fields=_FIELDS) as form:
        parts = [value for _, value in form.multi_items()]
        files = [value for value in parts if isinstance(value, UploadFile)]
        if len(files) < len(parts):  # words are told by their place: no part is passed over
            raise Refused("unprocessable", "every part of a form is a picture with a filename, and one has none")
        return [await value.read() for value in files]


def _json(body: bytes, most_images: int) -> list[bytes]:
    """Before anything is parsed the values that there can be are counted: each takes a hundred times its two bytes."""
    if body.count(b",") > most_images + _SLACK or body.count(b'"') > 2 * (most_images + _SLACK):
        raise Refused("too_large", f"a request may have {most_images:,} pictures, and no other values")
    try:
        given = JsonImages.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise Refused("unprocessable", f"{where[:100]}: {first['msg'][:200]}") from None
    _check_count(len(given.images), most_images)
    images = []
    for number, text in enumerate(given.images):
        try:
            images.append(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError):
            raise Refused("unprocessable", f"images.{number}: is no base64") from None
    return images


def _counted(receive: Any, most: int) -> Any:
    """The body may come without a length."""
    came = 0

    async def counted() -> MutableMapping[str, Any]:
        nonlocal came
        message = await receive()
        came += len(message.get("body", b""))
        if came > most:
            raise Refused("too_large", f"a request may have {most:,} bytes")
        return message

    return counted
