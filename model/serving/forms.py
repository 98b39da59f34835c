"""What a request to edit holds, read from a form with files or from JSON that names uploads."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from model.serving.edit_queue import EditQueue
from model.serving.security import MAX_FORM
from model.serving.settings import EditSettings, read_settings
from shards.errors import SettingError
from shards.limits import parse_json
from shards.sample import MEDIA_NAME

MAX_FILES = 16
MAX_NAME = 200  # characters of a file's name, of which only the suffix is kept
# Described by hand, since the body is not read by FastAPI, which would hold it to its end.
BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["text"],
                "properties": {
                    "text": {"type": "string", "description": "instruction, e.g. <video1> Make it night."},
                    "settings": {"type": "string", "description": "settings as JSON"},
                    "video1": {"type": "string", "format": "binary"},
                    "image1": {"type": "string", "format": "binary"},
                    "mask": {"type": "string", "format": "binary"},
                },
                "additionalProperties": {"type": "string", "format": "binary"},
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["text"],
                "additionalProperties": False,
                "properties": {
                    "text": {"type": "string"},
                    "media": {
                        "type": "object",
                        "description": "ids of uploads by the names of tags",
                        "additionalProperties": {"type": "string"},
                    },
                    "settings": {"$ref": "#/components/schemas/EditSettings"},
                },
            }
        },
    },
}
UPLOAD_BODY: dict[str, Any] = {
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


@dataclass(frozen=True)
class EditForm:
    """A request to edit: `files` are on disk, with the names they came with, by the names of their tags."""

    text: str
    files: dict[str, tuple[Path, str]]
    settings: EditSettings


class FormParser(MultiPartParser):
    """Starlette's parser, whose headers are short."""

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """Collect a header."""
        if len(self._current_partial_header_value) + end - start > 8192:
            raise MultiPartException("a header is too long")
        super().on_header_value(data, start, end)


async def read_form(request: Request, queue: EditQueue, owner: str, folder: Path) -> EditForm:
    """The content of a request; its files arrive in `folder`.

    Raises:
        HTTPException: the body is of another kind (415), malformed (400), too large (413) or slow (408).
        EditVerseError: a field that cannot be used.
        ClientDisconnect: it was broken off.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await _read_json(request, queue, owner)
    if kind != "multipart/form-data":
        raise HTTPException(415, "an edit is sent as multipart/form-data, or as application/json")
    parser = FormParser(
        request.headers, request.stream(), max_files=MAX_FILES, max_fields=4, max_part_size=MAX_FORM
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the form is malformed: {error.message}") from None
    try:
        texts: dict[str, str] = {}
        files: dict[str, tuple[Path, str]] = {}
        for name, value in form.multi_items():
            if name in texts or name in files:
                raise SettingError(f"{_shown(name)}: is there twice")
            if isinstance(value, UploadFile) and name not in ("text", "settings"):
                _check_name(name)
                file = folder / name
                files[name] = file, (value.filename or "")[-MAX_NAME:]
                await asyncio.to_thread(_copy, value.file, file)
            elif isinstance(value, str) and name in ("text", "settings"):
                texts[name] = value
            else:
                raise SettingError(f"{_shown(name)}: fields are text and settings, files are media by name")
    finally:
        await form.close()
    if "text" not in texts:
        raise SettingError("text: is missing")
    settings = parse_json(texts["settings"], "settings") if texts.get("settings") else {}
    return EditForm(texts["text"], files, read_settings(settings))


async def _read_json(request: Request, queue: EditQueue, owner: str) -> EditForm:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise HTTPException(413, f"a request in JSON has at most {MAX_FORM} bytes")
    value = parse_json(bytes(body), "the request")
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise SettingError("text: is missing, or is no text")
    if unknown := set(value) - {"text", "media", "settings"}:
        raise SettingError(f"{_shown(min(unknown))}: unknown; there are text, media and settings")
    media = value.get("media", {})
    if not isinstance(media, dict) or not all(isinstance(id, str) for id in media.values()):
        raise SettingError("media: needs ids of uploads by the names of tags")
    files = {}
    for name, id in media.items():
        _check_name(name)
        file = await asyncio.to_thread(queue.upload, owner, id)
        files[name] = file, file.name
    return EditForm(value["text"], files, read_settings(value.get("settings", {})))


async def read_file(request: Request, file: Path) -> None:
    """Write a request's body to a file.

    Raises:
        HTTPException: nothing was sent (400), or as `read_form` does.
    """
    opened = await asyncio.to_thread(file.open, "wb")
    try:
        async for chunk in _blocks(request.stream()):
            await asyncio.to_thread(opened.write, chunk)
    finally:
        await asyncio.to_thread(opened.close)
    if not file.stat().st_size:
        raise HTTPException(400, "the file is empty")


async def _blocks(stream: AsyncIterator[bytes], size: int = 1 << 20) -> AsyncIterator[bytes]:
    """A stream in pieces of at least `size` bytes, the last one excepted."""
    block = bytearray()
    async for chunk in stream:
        block += chunk
        if len(block) >= size:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def _check_name(name: str) -> None:
    if not MEDIA_NAME.match(name) or not re.fullmatch(r"[a-z0-9]{1,20}", name):
        raise SettingError(f"media {_shown(name)}: names are video1, image1, mask and so on")


def _shown(name: str) -> str:
    return repr(name.encode("ascii", "replace").decode()[:40])


def _copy(source: Any, target: Path) -> None:
    with target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
