"""The form of answers, for OpenAPI. They are written by json, as a model for each word would take longer."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class WordRead(BaseModel):
    text: str
    confidence: float
    char_confidences: list[float]
    hint: str


class ImageFault(BaseModel):
    type: Literal["image", "network"]
    message: str


class WordUnread(BaseModel):
    error: ImageFault


class ReadAnswer(BaseModel):
    """words: one for each picture, in their order."""

    bundle: str
    words: list[WordRead | WordUnread]


class PhotoWord(BaseModel):
    """quad: top left, top right, bottom right and bottom left corner as it is read, x and y in pixels."""

    text: str
    confidence: float
    score: float
    quad: list[list[float]]


class PhotoAnswer(BaseModel):
    bundle: str
    width: int
    height: int
    words: list[PhotoWord]


class Fault(BaseModel):
    type: str
    message: str


class ErrorAnswer(BaseModel):
    bundle: str
    error: Fault


class Health(BaseModel):
    status: Literal["ready"]
    bundle: str


class Info(BaseModel):
    """What a client may send, and what answers."""

    bundle: str
    backend: str
    batch_size: int
    max_images: int
    max_bytes: int
    photos: bool
    characters: int
