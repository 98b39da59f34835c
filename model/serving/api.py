"""The HTTP interface of a service: edits are submitted, watched, cancelled and fetched."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field
from starlette.responses import FileResponse

from model.serving import forms
from model.serving.config import ServeConfig
from model.serving.edit_queue import EditQueue
from model.serving.metrics import KIND
from model.serving.security import Gate, Owner, say_errors_in_one_line
from model.serving.settings import EditSettings
from model.serving.store import OVER, EditRecord
from model.serving.tokens import Tokens
from model.serving.work import EditorFacts
from shards.errors import SettingError

TYPES = {".mp4": "video/mp4", ".png": "image/png", ".mkv": "video/x-matroska"}
Id = Annotated[str, Field(max_length=40)]


class Problem(BaseModel):
    """An error (RFC 9457); `detail` is one line that says what to do."""

    type: str
    title: str
    status: int
    detail: str


class EditStatus(BaseModel):
    """Where an edit stands.

    Attributes:
        id: to ask for it by.
        state: queued, running, done, failed or cancelled.
        text: instruction.
        detail: what was made, or why nothing was; "" before that.
        position: place in the queue, 1 being the next; null where it does not wait.
        steps_done, steps_total: solver steps; 0 of 0 before it is begun.
        created, started, finished: times of day.
        seconds: for which a worker was at it.
        result, mask: addresses of the files, where there are any.
        expires: when they go.
    """

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    text: str
    detail: str
    position: int | None
    steps_done: int
    steps_total: int
    created: datetime
    started: datetime | None
    finished: datetime | None
    seconds: float | None
    result: str | None
    mask: str | None
    expires: datetime | None


class Upload(BaseModel):
    """A file that edits may be made of, by its id, until it `expires`."""

    id: str
    expires: datetime


class Health(BaseModel):
    """Whether edits are taken in, and who is at work."""

    status: Literal["ok", "loading", "draining"]
    workers: int
    workers_ready: int
    waiting: int
    running: int


class Model(BaseModel):
    """What edits are made with, and the limits of the service."""

    id: str
    parameters: int
    window_frames: int
    multiple: int
    defaults: dict[str, Any]
    workers: int
    max_frames: int
    max_steps: int
    edit_timeout: float
    max_upload_mb: int
    keep_hours: float


class Models(BaseModel):
    """The models that are served: one."""

    models: list[Model]


def create_app(queue: EditQueue, facts: EditorFacts) -> FastAPI:
    """The application of an open queue; `facts` are of its editor."""
    config = queue.config
    app = FastAPI(
        title="EditVerse",
        version="1",
        description="In-context editing of images and videos.",
        docs_url=None,  # such pages load scripts from other hosts
        redoc_url=None,
    )
    app.state.tokens = Tokens(config.tokens) if config.tokens is not None else None
    say_errors_in_one_line(app)
    app.add_middleware(Gate, config=config, metrics=queue.metrics)
    _add_edits(app, queue)
    _add_service(app, queue, facts)
    return app


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {status: {"content": {"application/problem+json": schema}} for status in (401, 403, *statuses)}


def _add_edits(app: FastAPI, queue: EditQueue) -> None:
    @app.post(
        "/v1/uploads",
        status_code=201,
        responses=_errors(400, 408, 413, 503, 507),
        openapi_extra={"requestBody": forms.UPLOAD_BODY},
    )
    async def upload(request: Request, owner: Owner, filename: str = "") -> Upload:
        """Send a file that several edits are to be made of; its body is the file."""
        async with _Staged(queue, request) as folder:
            file = folder / "file"
            await forms.read_file(request, file)
            name = filename[-forms.MAX_NAME :]
            id, created = await asyncio.to_thread(queue.add_upload, owner, file, name)
        return Upload(id=id, expires=_expiry(queue.config, created))

    @app.post(
        "/v1/edits",
        status_code=202,
        responses=_errors(400, 408, 413, 415, 422, 429, 503, 507),
        openapi_extra={"requestBody": forms.BODY},
    )
    async def submit(request: Request, response: Response, owner: Owner) -> EditStatus:
        """Submit an edit: a form with text, settings and files, or JSON that names uploads."""
        queue.check_open()
        async with _Staged(queue, request) as folder:
            form = await forms.read_form(request, queue, owner, folder)
            _check_steps(form.settings, queue.config)
            record = await asyncio.to_thread(queue.submit, owner, form.text, form.files, form.settings)
        response.headers["location"] = f"/v1/edits/{record.id}"
        return _status(queue, record)

    @app.get("/v1/edits/{id}", responses=_errors(404))
    def status(id: Id, owner: Owner) -> EditStatus:
        """Where an edit stands."""
        return _status(queue, queue.get(id, owner))

    @app.delete("/v1/edits/{id}", responses=_errors(404))
    def cancel(id: Id, owner: Owner) -> EditStatus:
        """Give an edit up: at once if it waits, else between two solver steps; one that is over stays."""
        return _status(queue, queue.cancel(id, owner))

    files: dict[str, Any] = {
        "response_class": FileResponse,
        "responses": _errors(404, 409)
        | {200: {"content": {kind: {} for kind in TYPES.values()}}, 206: {}, 416: {}},
    }

    @app.get("/v1/edits/{id}/result", **files)
    def result(id: Id, owner: Owner) -> Response:
        """The mp4 or png; ranges may be asked for."""
        return _file_response(queue.file(id, owner))

    @app.get("/v1/edits/{id}/mask", **files)
    def mask(id: Id, owner: Owner) -> Response:
        """The mask that was used, of an edit with `keep`: FFV1 in Matroska, or png."""
        return _file_response(queue.file(id, owner, mask=True))


def _add_service(app: FastAPI, queue: EditQueue, facts: EditorFacts) -> None:
    config, pool = queue.config, queue.pool

    @app.get("/v1/health", responses={503: {"model": Health}})
    def health(response: Response) -> Health:
        """Whether edits are taken in; the status is 503 where they are not. Needs no token."""
        state: Literal["ok", "loading", "draining"] = "ok" if pool.num_ready else "loading"
        if queue.is_draining:
            state = "draining"
        if state != "ok":
            response.status_code = 503
        return Health(
            status=state,
            workers=len(pool.slots),
            workers_ready=pool.num_ready,
            waiting=pool.num_waiting,
            running=pool.num_running,
        )

    @app.get("/v1/models", responses=_errors())
    def models(owner: Owner) -> Models:
        """What edits are made with, and how much is taken."""
        model = Model(
            id=Path(pool.config.checkpoint).name or pool.config.checkpoint,
            parameters=facts.parameters,
            window_frames=facts.frames,
            multiple=facts.multiple,
            defaults=dict(facts.defaults),
            workers=len(pool.slots),
            max_frames=config.max_frames,
            max_steps=config.max_steps,
            edit_timeout=config.edit_timeout,
            max_upload_mb=config.max_upload_mb,
            keep_hours=config.keep_hours,
        )
        return Models(models=[model])

    @app.get("/metrics", response_class=PlainTextResponse, responses=_errors())
    def metrics(owner: Owner) -> Response:
        """Counts in Prometheus' text format."""
        return Response(queue.metrics.render(queue.gauges()), media_type=KIND)

    original = app.openapi

    def openapi() -> dict[str, Any]:
        """FastAPI's schema, with the models that stand in bodies which it does not read itself."""
        if app.openapi_schema is None:
            schemas = original().setdefault("components", {}).setdefault("schemas", {})
            for kind in (EditSettings, Problem):
                schemas[kind.__name__] = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        return original()

    app.openapi = openapi  # type: ignore[method-assign]


class _Staged:
    """`EditQueue.staging` around the arrival of a request, outside of the server's own thread."""

    def __init__(self, queue: EditQueue, request: Request) -> None:
        length = request.headers.get("content-length")
        size = int(length) if length is not None else queue.config.max_upload_mb * 10**6
        self._context = queue.staging(size)

    async def __aenter__(self) -> Path:
        return await asyncio.to_thread(self._context.__enter__)

    async def __aexit__(self, *error: Any) -> None:
        await asyncio.to_thread(self._context.__exit__, *error)


def _check_steps(settings: EditSettings, config: ServeConfig) -> None:
    if settings.steps is not None and settings.steps > config.max_steps:
        raise SettingError(f"settings.steps: at most {config.max_steps} are made here")


def _status(queue: EditQueue, record: EditRecord) -> EditStatus:
    address = f"/v1/edits/{record.id}"
    is_done, is_over = record.state == "done", record.state in OVER
    done, total = queue.progress(record)
    return EditStatus(
        id=record.id,
        state=record.state,
        text=record.text,
        detail=record.line,
        position=queue.pool.position(record.id) if record.state == "queued" else None,
        steps_done=done,
        steps_total=total,
        created=_time(record.created),
        started=_time(record.started),
        finished=_time(record.finished),
        seconds=record.seconds,
        result=f"{address}/result" if is_done else None,
        mask=f"{address}/mask" if is_done and record.has_mask else None,
        expires=_expiry(queue.config, record.finished) if is_over and record.finished else None,
    )


def _time(seconds: float | None) -> Any:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _expiry(config: ServeConfig, since: float) -> Any:
    return _time(since + 3600 * config.keep_hours)


def _file_response(path: Path) -> Response:
    return FileResponse(path, media_type=TYPES[path.suffix], filename=path.name)
