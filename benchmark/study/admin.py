"""The researcher's page: progress, raters and their links, closing, deleting, exporting; behind a password.

What a visitor may try is bounded: after a wrong password an address waits, twice as long after each.
"""

# Annotations are not postponed: FastAPI could not find those of routes within a function.
import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from benchmark.report.templating import environment
from benchmark.study.folder import ANALYSIS, REPORT
from benchmark.study.records import MAX_LABEL, StudyError
from benchmark.study.security import (
    ADMIN_SECONDS,
    ServeSettings,
    check_form,
    client_of,
    security_of,
    too_many,
)
from benchmark.study.store import Store

TEMPLATES = Path(__file__).parent / "templates"
MIN_PASSWORD, MAX_PASSWORD = 12, 1024  # characters
COST = {"n": 2**15, "r": 8, "p": 3}  # OWASP's, of 2025: 32 MiB and some 0.3 s
MAX_DELAY = 900.0  # seconds between two tries of one address, at most
REMEMBERED = 10_000  # addresses that gave a wrong password


def hash_password(password: str) -> str:
    """What is stored of a password: scrypt's parameters, 16 random bytes and the hash.

    Raises:
        StudyError: it has fewer than 12 characters, or more than 1,024.
    """
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise StudyError(f"the password needs {MIN_PASSWORD} characters or more, and {MAX_PASSWORD} at most")
    salt = secrets.token_bytes(16)
    numbers = "$".join(str(COST[name]) for name in ("n", "r", "p"))
    made = _scrypt(password, salt, **COST)
    return f"scrypt${numbers}${base64.b64encode(salt).decode()}${base64.b64encode(made).decode()}"


def check_password(password: str, hashed: str) -> bool:
    """Whether a password is that of `hash_password`."""
    _, n, r, p, salt, wanted = hashed.split("$")
    made = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(made, base64.b64decode(wanted))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    text = password.encode("utf-8", "replace")
    return hashlib.scrypt(text, salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=32)


class Delays:
    """How long each address waits before it may try a password again."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # tries, when the next one may come

    def check(self, client: str) -> None:
        """Raise 429 for one that has to wait."""
        wait = self._wrong.get(client, (0, 0.0))[1] - time.monotonic()
        if wait > 0:
            raise too_many(wait)

    def wrong(self, client: str) -> None:
        """Note a wrong password: 1, 2, 4 ... seconds."""
        tries = self._wrong.pop(client, (0, 0.0))[0] + 1
        self._wrong[client] = (tries, time.monotonic() + min(2.0 ** (tries - 1), MAX_DELAY))
        if len(self._wrong) > REMEMBERED:
            self._wrong.popitem(last=False)

    def right(self, client: str) -> None:
        """Forget an address that knew the password."""
        self._wrong.pop(client, None)


def personal_data(store: Store, rater_id: int) -> dict[str, Any]:
    """All that is stored of one rater but what the study hides from them; StudyError if there is none."""
    rater = store.rater(rater_id)
    if rater is None:
        raise StudyError(f"rater {rater_id}: there is none")
    kept = ("trial", "position", "item", "answers", "seconds", "created")
    votes = [vote for vote in store.votes() if vote.rater == rater.label]
    return {
        "label": rater.label,
        "seat": rater.seat,
        "invited": rater.created.isoformat(),
        "votes": [
            {name: getattr(vote, name) for name in kept} | {"created": vote.created.isoformat()}
            for vote in votes
        ],
    }


def router(store: Store, folder: Path, settings: ServeSettings) -> APIRouter:
    """The routes under /admin.

    Args:
        folder: of the study; its report is shown when there is one.
    """
    routes = APIRouter(prefix="/admin", include_in_schema=True)
    pages = environment(TEMPLATES)
    delays, testing = Delays(), threading.Lock()
    ended: set[str] = set()  # nonces of sessions that were logged out of

    def fingerprint() -> str:
        """Changes with the password, which ends all sessions."""
        return hashlib.sha256((store.admin_hash or "").encode()).hexdigest()[:16]

    def session_of(request: Request) -> dict[str, Any] | None:
        session = security_of(request).session(request, "admin", ADMIN_SECONDS)
        good = session and session["password"] == fingerprint() and session["nonce"] not in ended
        return session if good else None

    def admin(request: Request) -> dict[str, Any]:
        session = session_of(request)
        if session is None:
            raise HTTPException(401, "log in at /admin")
        return session

    Admin = Annotated[dict[str, Any], Depends(admin)]

    async def form(request: Request, session: Admin) -> dict[str, Any]:
        await check_form(request, session)
        return session

    Posted = Annotated[dict[str, Any], Depends(form)]
    Label = Annotated[str, Form(min_length=1, max_length=MAX_LABEL, pattern=r"^[^\x00-\x1f\x7f]+$")]

    def show(request: Request, session: dict[str, Any], status: int = 200, **facts: Any) -> Response:
        raters = store.raters()
        page = pages.get_template("admin.html").render(
            {"message": "", "link": ""}
            | facts
            | {
                "name": store.definition.name,
                "closed": store.closed,
                "raters": raters,
                "answered": sum(rater.answered for rater in raters),
                "total": sum(store.totals.values()),
                "seats": len(store.totals),
                "report": (folder / ANALYSIS / REPORT).is_file(),
                "csrf": security_of(request).form_token(session),
            }
        )
        return HTMLResponse(page, status)

    def login_page(status: int = 200, message: str = "") -> Response:
        if store.admin_hash is None:
            status, message = 403, "No password is set. Set one: python -m benchmark study admin STUDY"
        page = pages.get_template("admin_login.html")
        return HTMLResponse(page.render(message=message, usable=store.admin_hash is not None), status)

    @routes.get("")
    def overview(request: Request) -> Response:
        session = session_of(request)
        return show(request, session) if session else login_page()

    @routes.post("/login")
    def login(
        request: Request, password: Annotated[str, Form(min_length=1, max_length=MAX_PASSWORD)]
    ) -> Response:
        hashed, client = store.admin_hash, client_of(request)
        if hashed is None:
            return login_page()
        if not testing.acquire(blocking=False):  # one at a time: memory, and threads for raters
            raise too_many(1)
        try:
            delays.check(client)
            security_of(request).rates.check("login", client)
            if not check_password(password, hashed):
                delays.wrong(client)
                security_of(request).rates.count("login", client)
                return login_page(403, "This is not the password.")
            delays.right(client)
        finally:
            testing.release()
        response = RedirectResponse("/admin", 303)
        content = {"password": fingerprint()}
        security_of(request).set_session(response, "admin", content, ADMIN_SECONDS)
        return response

    @routes.post("/logout")
    def logout(session: Posted) -> Response:
        ended.add(session["nonce"])
        response = RedirectResponse("/admin", 303)
        response.delete_cookie(settings.cookie("admin"), path="/", secure=settings.secure, httponly=True)
        return response

    @routes.post("/invite")
    def invite(request: Request, session: Posted, label: Label) -> Response:
        try:
            _, token = store.invite(label)
        except StudyError as error:
            return show(request, session, 409, message=str(error))
        message = f"The link of {label}, which is shown only now:"
        return show(request, session, message=message, link=settings.link(token))

    @routes.post("/state")
    def state(session: Posted, closed: Annotated[Literal["yes", "no"], Form()]) -> Response:
        store.close(closed == "yes")
        return RedirectResponse("/admin", 303)

    @routes.post("/raters/{rater_id}/delete")
    def delete(request: Request, session: Posted, rater_id: int, label: Label) -> Response:
        rater = _found(store, rater_id)
        if rater != label:
            return show(request, session, 409, message=f"Nothing was deleted: {label} is not the label.")
        votes = store.delete_rater(rater_id)
        return show(request, session, message=f"{label} was deleted with {votes} votes.")

    @routes.get("/raters/{rater_id}/data")
    def data(session: Admin, rater_id: int) -> Response:
        _found(store, rater_id)
        text = json.dumps(personal_data(store, rater_id), indent=1)
        headers = {"content-disposition": f'attachment; filename="rater-{rater_id}.json"'}
        return Response(text, 200, headers, "application/json")

    @routes.get("/analysis/{name:path}")
    def analysis(session: Admin, name: str) -> Response:
        place = folder / ANALYSIS
        files = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
        if name not in files:
            raise HTTPException(404, "there is no such file; `study analyse` makes the report")
        # The report brings the policy of its own scripts and styles.
        policy = {"content-security-policy": "frame-ancestors 'none'"} if name == REPORT else {}
        return FileResponse(files[name], headers=policy)

    return routes


def _found(store: Store, rater_id: int) -> str:
    """The label of a rater; 404 if there is none. Databases hold numbers of 31 bits."""
    rater = store.rater(rater_id) if 0 < rater_id < 2**31 else None
    if rater is None:
        raise HTTPException(404, "there is no such rater")
    return rater.label
