"""How a file gets to the page: one form with one file, stored within the quota."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import JSONResponse
from starlette.types import Scope

from model.app.client import MAX_FORM, Client, RefusedError, query_of
from model.app.files import FileStore, QuotaError

LOG = logging.getLogger(__name__)
logging.getLogger("python_multipart").setLevel(
    logging.ERROR
)  # warns of every malformed form, which we refuse


class UploadRoute:
    """Takes uploads of up to `max_mb` megabytes into `store`, in place of Gradio's route."""

    def __init__(self, store: FileStore, max_mb: int) -> None:
        self.store, self.max_mb = store, max_mb
        self.max_bytes = max_mb * 10**6 + MAX_FORM  # of a request

    async def serve(self, scope: Scope, client: Client) -> None:
        """Store the one file of a form, within the quota; answer with its path, as Gradio's route does."""
        headers = Headers(scope=scope)
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
            raise RefusedError(415, "an upload is multipart/form-data")
        size = int(headers.get("content-length", self.max_bytes))
        if size > self.max_bytes:
            raise self._too_large()
        try:
            with self.store.reserve(size):
                path = await self._stored(headers, client, query_of(scope).get("upload_id"))
        except QuotaError as error:
            raise RefusedError(413, str(error)) from None
        await JSONResponse([str(path)])(scope, client.receive, client.send)

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"this page takes files of at most {self.max_mb} MB")

    async def _stored(self, headers: Headers, client: Client, upload_id: str | None) -> Path:
        async def limited() -> AsyncIterator[bytes]:
            received = 0
            async for chunk in client.stream():
                received += len(chunk)
                if received > self.max_bytes:
                    raise self._too_large()
                yield chunk

        parser = _FormParser(headers, limited(), upload_id)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise RefusedError(400, f"the upload is malformed: {error.message}") from None
        finally:
            parser.finish()
        files = [value for value in form.getlist("files") if isinstance(value, UploadFile)]
        if len(files) != 1:
            await form.close()
            raise RefusedError(400, "the upload is malformed: it needs one file")
        path = self.store.new_entry() / _file_name(files[0].filename or "")
        try:
            await asyncio.to_thread(_write, files[0].file, path)
        except OSError as error:
            await asyncio.to_thread(shutil.rmtree, path.parent, ignore_errors=True)
            LOG.error("an upload was not stored: %s", error.strerror)
            raise RefusedError(507, f"the upload could not be stored: {error.strerror}") from None
        finally:
            await form.close()
        return path


class _FormParser(MultiPartParser):
    """Starlette's parser for one file; tells Gradio's progress route how far an upload is."""

    def __init__(self, headers: Headers, stream: AsyncIterator[bytes], upload_id: str | None) -> None:
        super().__init__(headers, stream, max_files=1, max_fields=8, max_part_size=MAX_FORM)  # type: ignore[arg-type]
        self.upload_id = upload_id
        from gradio.routes import file_upload_statuses

        self.progress = file_upload_statuses
        if upload_id:
            self.progress.track(upload_id)

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """Collect a header, which is short."""
        if len(self._current_partial_header_value) + end - start > 8192:
            raise MultiPartException("a header is too long")
        super().on_header_value(data, start, end)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Count what arrived."""
        super().on_part_data(data, start, end)
        file = self._current_part.file
        if self.upload_id and file is not None:
            self.progress.append(self.upload_id, file.filename or "", data[start:end])

    def finish(self) -> None:
        """End the stream that shows the progress."""
        if self.upload_id:
            self.progress.set_done(self.upload_id)


def _write(source: BinaryIO, path: Path) -> None:
    with path.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _file_name(name: str) -> str:
    """An upload's own name as far as it is safe; the suffix stays, which says what the file is."""
    cleaned = re.sub(r"[^\w .()+-]", "_", name.replace("\\", "/").rpartition("/")[2]).strip(" .")
    stem, dot, suffix = cleaned.rpartition(".")
    if not dot or len(suffix) > 10:
        return cleaned[:60] or "upload"
    return f"{stem[:60] or 'upload'}.{suffix}"
