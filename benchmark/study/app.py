"""The study's server: a rater's link, pages, videos and votes."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from benchmark.study import admin, security
from benchmark.study.folder import MEDIA
from benchmark.study.guards import wants_page
from benchmark.study.rater_pages import RETRY_SECONDS, SLOTS, RaterPages, clip_of, static_files
from benchmark.study.records import Rater, Side, Slot, VoteRefused
from benchmark.study.store import Store
from shards.errors import MediaError

LOG = logging.getLogger(__name__)
CurrentRater = Annotated[Rater, Depends(security.current_rater)]
VotingRater = Annotated[Rater, Depends(security.voting_rater)]
YEAR, HOUR = 31_536_000, 3600  # seconds that browsers keep static files and videos for


class Ballot(BaseModel):
    """A vote as the page sends it.

    Attributes:
        trial: which comparison.
        answers: a side by criterion.
        seconds: for which the page could be seen.
    """

    model_config = ConfigDict(extra="forbid")

    trial: Annotated[str, Field(min_length=1, max_length=100)]
    answers: Annotated[dict[Annotated[str, Field(max_length=40)], Side], Field(max_length=100)]
    seconds: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]


class ClipResponse(FileResponse):
    """A video with ranges. It has the tag of what shows it, not of its file, and no date of change.

    A file's size and date would be the same wherever it is shown, and could be compared.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def undated(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["last-modified"]
            await send(message)

        await super().__call__(scope, receive, undated)


def create_app(store: Store, folder: Path, settings: security.ServeSettings, schema: bool = False) -> FastAPI:
    """The application of a study.

    Args:
        store: its database.
        folder: of the study, with `media/`.
        settings: where it is served, and its limits.
        schema: whether /openapi.json tells what is understood; for tests.

    Raises:
        StudyError: the study's texts cannot be used.
    """
    app = FastAPI(
        title=store.definition.name,
        openapi_url="/openapi.json" if schema else None,
        docs_url=None,
        redoc_url=None,
    )
    pages = RaterPages(store.definition, folder)
    security.add_security(app, store, settings)
    _add_errors(app, pages)
    _add_pages(app, pages, store, folder)
    _add_files(app, store, folder)
    app.include_router(admin.router(store, folder, settings))
    return app


def _add_pages(app: FastAPI, pages: RaterPages, store: Store, folder: Path) -> None:
    """Routes that a rater's browser opens, and that which takes votes."""

    @app.get("/", include_in_schema=False)
    def root() -> Response:
        return RedirectResponse("/study", 303)

    @app.get("/r/{token}", response_class=RedirectResponse, status_code=303)
    def enter(request: Request, token: str) -> Response:
        """A rater's own link: who opens it goes on where they stopped."""
        rater = security.rater_of_link(request, token)
        response = RedirectResponse("/study", 303)
        security.start_session(request, response, rater)
        return response

    @app.get("/study", response_class=HTMLResponse)
    def study(request: Request, rater: CurrentRater, begin: bool = False, welcome: bool = False) -> Response:
        """The welcome page, the next comparison, or the end.

        Who has not answered anything is welcomed until they `begin`; `welcome` shows that page again.
        """
        trial = store.next_trial(rater)
        if trial is None:
            return RedirectResponse("/done", 303)
        if store.closed is not None:
            return HTMLResponse(pages.notice("closed"))
        if welcome or (rater.answered == 0 and not begin):
            return HTMLResponse(pages.welcome(rater))
        clips = [clip_of(_file(store, folder, rater, trial.id, slot)) for slot in SLOTS]
        page = pages.pair(trial, clips, security.csrf_token(request))
        store.show(rater, trial.id)
        return HTMLResponse(page)

    @app.get("/done", response_class=HTMLResponse)
    def done(rater: CurrentRater) -> Response:
        """The end; who has comparisons left is led back to them."""
        if rater.answered < rater.total:
            return RedirectResponse("/study", 303)
        return HTMLResponse(pages.notice("done", total=rater.total))

    @app.post("/vote", responses={409: {}, 503: {}})
    def vote(rater: VotingRater, ballot: Ballot) -> dict[str, bool]:
        """Take a vote. It is on disk when `saved` is said; `new` is false if it was there before."""
        new = store.record(rater, ballot.trial, ballot.answers, ballot.seconds)
        return {"saved": True, "new": new}


def _add_files(app: FastAPI, store: Store, folder: Path) -> None:
    """Routes of what pages load."""

    @app.get("/media/{trial}/{slot}", response_class=Response)
    def media(request: Request, rater: CurrentRater, trial: str, slot: Slot) -> Response:
        """A video of a comparison, for the rater who has it in their list."""
        path = _file(store, folder, rater, trial, slot)
        if not path.is_file():
            raise MediaError(f"{path}: is missing in the study's folder")
        tag = f'"{hashlib.sha256(f"{store.secret} {trial} {slot}".encode()).hexdigest()[:32]}"'
        headers = {"etag": tag, "cache-control": f"private, max-age={HOUR}"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return ClipResponse(path, headers=headers, media_type="video/mp4")

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str, v: str = "") -> Response:
        file = static_files().get(name)
        if file is None:
            raise HTTPException(404, "there is no such file")
        # an address with the content's tag never shows another content
        headers = {"cache-control": f"public, max-age={YEAR}, immutable" if v == file.tag else "no-cache"}
        return Response(file.content, media_type=file.media_type, headers=headers)

    @app.get("/healthz")
    def health() -> dict[str, bool]:
        """Whether the server and its database answer."""
        return {"open": store.closed is None}


def _file(store: Store, folder: Path, rater: Rater, trial: str, slot: Slot) -> Path:
    """The video of a rater's trial; 404 where it is not theirs."""
    name = store.media(rater, trial, slot)
    if name is None:
        raise HTTPException(404, "there is no such video")
    return folder / MEDIA / name


def _add_errors(app: FastAPI, pages: RaterPages) -> None:
    """Say errors in the study's own words to raters; what is left is said by `security`."""
    texts = pages.texts

    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, VoteRefused)
        return JSONResponse({"reason": error.reason, "detail": texts[f"refused_{error.reason}"]}, 409)

    def broken(request: Request, error: Exception) -> Response:
        """A prepared video is damaged or gone; the log names it."""
        LOG.error("a comparison cannot be shown: %s", error)
        if wants_page(request):
            return HTMLResponse(pages.notice("broken"), 500)
        return JSONResponse({"detail": texts["broken_text"]}, 500)

    app.add_exception_handler(VoteRefused, refused)
    app.add_exception_handler(MediaError, broken)
    by_status = {401: ("signed_out", ""), 404: ("missing", "go_on"), 503: ("busy", "")}
    earlier: dict[Any, Any] = dict(app.exception_handlers)

    async def http_error(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 503)
        known = by_status.get(status)
        path = request.url.path
        if known is None or path.startswith("/admin") or not wants_page(request):
            handler = next(earlier[kind] for kind in type(error).__mro__ if kind in earlier)
            answer: Response = await handler(request, error)
            return answer
        name, way_on = ("bad_link", "") if path.startswith("/r/") and status == 404 else known
        headers = {"retry-after": str(RETRY_SECONDS)} if status == 503 else None
        page = pages.notice(name, way_on, RETRY_SECONDS if status == 503 else 0)
        return HTMLResponse(page, status, headers)

    for kind in (StarletteHTTPException, OperationalError, InterfaceError, PoolTimeoutError):
        app.add_exception_handler(kind, http_error)
