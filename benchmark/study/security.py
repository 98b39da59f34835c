"""Who may ask a study's server for what: hosts, origins, sessions, forms, rates and sizes.

What a browser of a rater or of the researcher needs, and nothing else, gets through. Rates are counted in the
memory of one process.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.middleware.trustedhost import TrustedHostMiddleware

from benchmark.study.guards import MAX_BODY, Answers, Guard, say_errors_in_one_line
from benchmark.study.records import Rater, StudyError
from benchmark.study.store import Store

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
RATER_SECONDS, ADMIN_SECONDS = 30 * 86400, 8 * 3600  # how long a session lasts
# The most of each kind: for a client (an address, or a rater for votes) and in all.
LIMITS = {
    "link": ("10 per minute", "300 per minute"),  # links that lead nowhere
    "login": ("10 per hour", "60 per hour"),  # wrong passwords of the admin page
    "vote": ("120 per minute", "6000 per minute"),
}


@dataclass(frozen=True)
class ServeSettings:
    """Where a study is served, and how much of what a client may ask.

    Attributes:
        base_url: the address that raters open, without a path; https behind a proxy.
        trusted_hosts: names beside that of `base_url` and this machine's own.
        forwarded_allow_ips: of proxies whose X-Forwarded-For and -Proto are believed; none if empty.
        limits: by kind the most for a client and in all, as `LIMITS`; those not named stay.
        max_body: of a request, in bytes.
    """

    base_url: str = "http://127.0.0.1:8080"
    trusted_hosts: tuple[str, ...] = ()
    forwarded_allow_ips: str = ""
    limits: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    max_body: int = MAX_BODY

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if not good or parts.path.strip("/") or parts.query or parts.fragment:
            raise StudyError(f"--base-url {self.base_url}: needs http(s)://HOST[:PORT] without a path")
        for name in self.trusted_hosts:
            if not name or "*" in name or "/" in name:
                raise StudyError(f"--trusted-hosts {name}: needs a host's name, without * and /")
        for kind in self.limits:
            if kind not in LIMITS:
                raise StudyError(f"limit {kind}: there are {', '.join(LIMITS)}")

    @property
    def secure(self) -> bool:
        """Whether cookies are for https alone."""
        return urlsplit(self.base_url).scheme == "https"

    @property
    def hosts(self) -> list[str]:
        """Every name that is answered. A web page elsewhere cannot be on this machine's own names."""
        name = urlsplit(self.base_url).hostname or ""
        own = f"[{name}]" if ":" in name else name
        return list(dict.fromkeys((own, *self.trusted_hosts, *LOOPBACK)))

    def link(self, token: str) -> str:
        """The address that a rater is sent."""
        return f"{self.base_url.rstrip('/')}/r/{token}"

    def cookie(self, name: str) -> str:
        """A cookie's name; with https one that no other host or path can set, else one of this port."""
        if self.secure:
            return f"__Host-{name}"
        return f"{name}-{urlsplit(self.base_url).port or 80}"


def uvicorn_options(settings: ServeSettings) -> dict[str, Any]:
    """How uvicorn serves a study: no name of the server, no log of addresses, which hold tokens."""
    proxies = settings.forwarded_allow_ips
    return {
        "server_header": False,
        "access_log": False,
        "proxy_headers": bool(proxies),
        "forwarded_allow_ips": proxies or None,
        "ws": "none",
        "log_level": "warning",
        "timeout_keep_alive": 20,
    }


class Security:
    """What a server knows of sessions and rates; `app.state.security`."""

    def __init__(self, store: Store, settings: ServeSettings) -> None:
        self.store, self.settings = store, settings
        self.sessions = URLSafeTimedSerializer(store.secret, salt="session")
        self.rates = Rates({**LIMITS, **settings.limits})

    def session(self, request: Request, name: str, seconds: int) -> dict[str, Any] | None:
        """What a cookie of ours says; None if there is none, or it is old or not ours."""
        try:
            found = self.sessions.loads(request.cookies.get(self.settings.cookie(name), ""), seconds)
        except BadSignature:  # SignatureExpired is one
            return None
        return found if isinstance(found, dict) and found.get("for") == name else None

    def set_session(self, response: Response, name: str, content: dict[str, Any], seconds: int) -> None:
        """Send a cookie that holds `content`, signed, and a random part that form tokens are made of.

        A rater's is `Lax`, since their link stands in a message on another site; others are `Strict`.
        """
        signed = self.sessions.dumps({**content, "for": name, "nonce": secrets.token_urlsafe(16)})
        response.set_cookie(
            self.settings.cookie(name),
            str(signed),
            max_age=seconds,
            path="/",
            secure=self.settings.secure,
            httponly=True,
            samesite="lax" if name == "rater" else "strict",
        )

    def form_token(self, session: dict[str, Any]) -> str:
        """The token that a session's forms carry."""
        text = f"csrf {session['for']} {session['nonce']}"
        return hmac.new(self.store.secret.encode(), text.encode(), hashlib.sha256).hexdigest()


class Rates:
    """Counts what clients do; once a limit is reached, 429 until its time has passed."""

    def __init__(self, limits: Mapping[str, tuple[str, str]]) -> None:
        self.limits: dict[str, tuple[RateLimitItem, RateLimitItem]] = {
            kind: (parse(each), parse(total)) for kind, (each, total) in limits.items()
        }
        self.strategy = SlidingWindowCounterRateLimiter(MemoryStorage())

    def check(self, kind: str, client: str) -> None:
        """Raise 429 if a client, or all together, had their share; counts nothing."""
        each, total = self.limits[kind]
        for limit, who in ((each, client), (total, "")):
            if not self.strategy.test(limit, kind, who or "all"):
                raise too_many(limit.get_expiry())

    def count(self, kind: str, client: str) -> None:
        """Count one."""
        each, total = self.limits[kind]
        self.strategy.hit(each, kind, client)
        self.strategy.hit(total, kind, "all")


def too_many(seconds: float) -> HTTPException:
    """The refusal of a client that asked too often."""
    wait = max(1, math.ceil(seconds))
    return HTTPException(429, f"too many tries; wait {wait} s", {"retry-after": str(wait)})


def client_of(request: Request) -> str:
    """Who asks: an address; of IPv6 the network of 64 bits, which one customer has."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def security_of(request: Request) -> Security:
    """The security of the server that got a request."""
    found: Security = request.app.state.security
    return found


# Raters.


def rater_of_link(request: Request, token: str) -> Rater:
    """Whose link a token is of; 404 if nobody's, 429 for a client that tried too many."""
    security, client = security_of(request), client_of(request)
    security.rates.check("link", client)
    rater = security.store.rater_of(token) if len(token) <= 200 else None
    if rater is None:
        security.rates.count("link", client)
        raise HTTPException(404, "this link is not valid; ask for a new one")
    return rater


def start_session(request: Request, response: Response, rater: Rater) -> None:
    """Send the cookie by which `current_rater` knows them."""
    content = {"rater": rater.id, "since": rater.created.isoformat()}
    security_of(request).set_session(response, "rater", content, RATER_SECONDS)


def _rater_session(request: Request) -> dict[str, Any]:
    session = security_of(request).session(request, "rater", RATER_SECONDS)
    if session is None:
        raise HTTPException(401, "open the link that you were sent once more")
    return session


def current_rater(request: Request) -> Rater:
    """Dependency: whose session it is; 401 if nobody's. Someone who was deleted has none.

    Numbers of deleted raters are given again, so that a session holds also since when there is its rater.
    """
    session = _rater_session(request)
    rater = security_of(request).store.rater(session["rater"])
    if rater is None or rater.created.isoformat() != session["since"]:
        raise HTTPException(401, "open the link that you were sent once more")
    return rater


def csrf_token(request: Request) -> str:
    """What a rater's page sends with each POST, in the header X-CSRF-Token or the form's field `csrf`."""
    return security_of(request).form_token(_rater_session(request))


async def check_csrf(request: Request) -> None:
    """Dependency: 403 unless the request carries `csrf_token`."""
    await check_form(request, _rater_session(request))


async def check_form(request: Request, session: dict[str, Any]) -> None:
    """403 unless a request carries the form token of its session."""
    sent: object = request.headers.get("x-csrf-token")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent is None and kind in ("application/x-www-form-urlencoded", "multipart/form-data"):
        sent = (await request.form()).get("csrf")
    good = security_of(request).form_token(session)
    if not isinstance(sent, str) or not hmac.compare_digest(sent.encode("utf-8", "replace"), good.encode()):
        raise HTTPException(403, "this page is out of date; load it again")


def voting_rater(
    request: Request, rater: Annotated[Rater, Depends(current_rater)], _: Annotated[None, Depends(check_csrf)]
) -> Rater:
    """Dependency of what takes votes: `current_rater`, `check_csrf` and the limit on votes."""
    rates = security_of(request).rates
    rates.check("vote", str(rater.id))
    rates.count("vote", str(rater.id))
    return rater


# The whole.


def add_security(app: FastAPI, store: Store, settings: ServeSettings) -> None:
    """Put a study's application behind the rules of this module.

    Adds middleware (headers, hosts, origins, sizes), handlers that say every error in one line, as a page or
    as JSON, and `app.state.security`.
    """
    app.state.security = Security(store, settings)
    app.add_middleware(Guard, base_url=settings.base_url, max_body=settings.max_body)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=settings.hosts, www_redirect=False)
    app.add_middleware(Answers)
    say_errors_in_one_line(app)
