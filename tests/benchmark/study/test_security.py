"""What a study's server refuses: other hosts and sites, guesses, forgeries, what is malformed or too much."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import hypothesis
import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from benchmark.study import admin, guards
from benchmark.study.app import create_app
from benchmark.study.folder import open_study
from benchmark.study.records import StudyError
from benchmark.study.security import ServeSettings, uvicorn_options
from benchmark.study.store import Store
from shards.reports.server import Server
from tests.benchmark.study.visitors import Visitor

BASE = "http://127.0.0.1:8080"
PASSWORD = "correct horse battery"
EXAMPLES = 12  # requests made up for each route
MALFORMED = (
    *(b"", b"{", b"\xff\xfe", b'"\\ud800"', b'{"\\ud800": 1}', b"NaN", b"null"),
    *(b"[" * 5000, b"1" * 5000, b'{"trial": "\\ud800", "answers": {"\\udfff": "left"}, "seconds": 1}'),
)
PAGE = {"accept": "text/html"}
# What has opened doors elsewhere: paths, SQL, templates, markup, headers, other encodings.
INJECTIONS = (
    "../../study.yaml",
    "..%2f..%2fstudy.yaml",
    "/etc/passwd",
    "' OR '1'='1",
    "'; DROP TABLE vote; --",
    '" UNION SELECT secret FROM study --',
    "%' OR label LIKE '%",
    "<script>alert(1)</script>",
    "a\r\nset-cookie: x=1",
    "\x00",
    "\ud7ff\uffff\U0010ffff",
    "x" * 3000,
)


@pytest.fixture(scope="module")
def hashed() -> str:
    """A hash that is made and checked fast; it says itself at what cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(admin.COST, "n", 16)
        return admin.hash_password(PASSWORD)


@pytest.fixture
def store(study: Path, hashed: str) -> Iterator[Store]:
    found = open_study(study)
    found.set_admin(hashed)
    yield found
    found.engine.dispose()


def site(store: Store, study: Path, **settings: object) -> FastAPI:
    return create_app(store, study, ServeSettings(**settings), schema=True)  # type: ignore[arg-type]


def browser(app: FastAPI, base: str = BASE, client: tuple[str, int] = ("127.0.0.1", 50000)) -> TestClient:
    """A client with cookies of its own, which sees a fault of the server as its status 500."""
    return TestClient(app, base, raise_server_exceptions=False, client=client)


@pytest.fixture
def app(store: Store, study: Path) -> FastAPI:
    return site(store, study)


@pytest.fixture
def anna(app: FastAPI, store: Store) -> Visitor:
    """A rater before their first pair."""
    rater = Visitor(browser(app), store.invite("anna")[1])
    rater.enter()
    assert rater.open()
    return rater


def answers_of(store: Store) -> dict[str, str]:
    return {question.id: "left" for question in store.definition.questions}


def log_in(app: FastAPI, password: str = PASSWORD, base: str = BASE) -> TestClient:
    client = browser(app, base)
    answer = client.post("/admin/login", data={"password": password})
    assert answer.status_code == 200, answer.text
    return client


def form_token(page: str) -> str:
    found = re.search(r'name="csrf" value="(\w+)"', page)
    assert found
    return found[1]


def test_every_answer_has_the_headers_that_protect_it(app: FastAPI, anna: Visitor) -> None:
    wrong_host = browser(app, "http://evil.example")
    media = f"/media/{anna.trial}/left"
    for client, path in [
        *(
            (anna.client, path)
            for path in ("/study", media, "/static/study.js", "/healthz", "/admin", "/nothing")
        ),
        *((browser(app), path) for path in ("/study", media, "/r/wrong")),
        (wrong_host, "/study"),
    ]:
        for kind in ("text/html", "application/json"):
            headers = client.get(path, headers={"accept": kind}).headers
            for name, value in guards.HEADERS.items():
                if name != "cache-control" or path not in (media, "/static/study.js"):
                    assert headers[name] == value, path
            assert "unsafe" not in headers["content-security-policy"]
            assert "public" not in headers["cache-control"] or path == "/static/study.js"
            assert "server" not in headers
            assert "x-powered-by" not in headers


def test_pages_keep_to_their_policy(app: FastAPI, anna: Visitor, store: Store) -> None:
    """No script, style or handler stands in a page, and nothing comes from elsewhere."""
    pages = [
        anna.page,
        anna.client.get("/study?welcome=1").text,
        anna.client.get("/nothing", headers=PAGE).text,
    ]
    pages += [browser(app).get("/admin").text, log_in(app).get("/admin").text]
    for page in pages:
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", page), page
        assert not re.search(r"(?:src|href|action)=[\"']?(?:https?:)?//", page), page


def test_a_session_is_a_cookie_that_scripts_and_other_sites_do_not_get(store: Store, study: Path) -> None:
    _, token = store.invite("anna")
    for base, start, flags in (
        (BASE, "rater-8080=", {"httponly", "samesite=lax", "path=/"}),
        ("https://study.example", "__Host-rater=", {"httponly", "samesite=lax", "path=/", "secure"}),
    ):
        app = site(store, study, base_url=base)
        answer = browser(app, base).get(f"/r/{token}", follow_redirects=False)
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(start)
        found = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert {part for part in found if not part.startswith(("max-age", "expires"))} == flags
        assert token not in cookie
        login = browser(app, base).post("/admin/login", data={"password": PASSWORD}, follow_redirects=False)
        assert "samesite=strict" in login.headers["set-cookie"].lower()


def test_tokens_and_passwords_are_nowhere_in_the_study(store: Store, study: Path) -> None:
    _, token = store.invite("anna")
    store.engine.dispose()
    for path in study.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path
            assert PASSWORD.encode() not in path.read_bytes(), path


def test_a_forged_or_foreign_session_is_none(app: FastAPI, anna: Visitor, store: Store, study: Path) -> None:
    name = "rater-8080"
    good = anna.client.cookies[name]
    body, stamp, signature = good.rsplit(".", 2)
    admin_cookie = log_in(app).cookies["admin-8080"]
    forged = [f"{body}x.{stamp}.{signature}", f"{body}.{stamp}.x{signature}", body, "", "...", admin_cookie]
    for cookie in (*forged, "x" * 5000, "é"):
        answer = browser(app).get("/study", headers={"cookie": f"{name}={cookie}".encode()})
        assert answer.status_code == 401, cookie
    assert browser(app).get("/study", headers={"cookie": f"{name}={good}"}).status_code == 200
    as_admin = browser(app).get("/admin/analysis/report.html", headers={"cookie": f"admin-8080={good}"})
    assert as_admin.status_code == 401


def test_a_deleted_rater_is_out_even_when_another_gets_the_number(anna: Visitor, store: Store) -> None:
    old = store.raters()[0]
    store.delete_rater(old.id)
    assert anna.client.get("/study").status_code == 401
    new, _ = store.invite("bob")
    assert (new.id, new.seat) == (old.id, old.seat)
    assert anna.client.get("/study").status_code == 401
    assert anna.vote(answers_of(store)).status_code == 401
    assert anna.client.get(f"/r/{anna.token}").status_code == 404


def test_a_rater_sees_no_video_of_another(app: FastAPI, anna: Visitor, store: Store) -> None:
    other = store.next_trial(store.invite("bob")[0])
    assert other is not None
    for slot in ("source", "left", "right"):
        assert anna.client.get(f"/media/{other.id}/{slot}").status_code == 404
        assert anna.client.get(f"/media/{anna.trial}/{slot}").status_code == 200
        assert browser(app).get(f"/media/{anna.trial}/{slot}").status_code == 401


def test_a_vote_needs_the_token_of_its_page(app: FastAPI, anna: Visitor, store: Store) -> None:
    bob = Visitor(browser(app), store.invite("bob")[1])
    bob.enter()
    bob.open()
    mine = anna.csrf
    for token in ("", "x", bob.csrf, mine[:-1], "é"):
        anna.csrf = token
        assert anna.vote(answers_of(store)).status_code == 403
    ballot = {"trial": anna.trial, "answers": answers_of(store), "seconds": 1.0}
    assert anna.client.post("/vote", json=ballot).status_code == 403
    assert anna.client.post("/vote", data={"csrf": "x", "trial": anna.trial}).status_code == 403
    assert store.votes() == []
    anna.csrf = mine
    assert anna.vote(answers_of(store)).status_code == 200


def test_other_sites_send_nothing(anna: Visitor, store: Store) -> None:
    for name, value in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://127.0.0.1:9999"),
        ("origin", "http://127.0.0.1:8080.evil.example"),
        ("origin", "https://127.0.0.1:8080"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ]:
        anna.client.headers[name] = value
        assert anna.vote(answers_of(store)).status_code == 403, value
        assert anna.client.post("/admin/login", data={"password": PASSWORD}).status_code == 403, value
        del anna.client.headers[name]
    assert store.votes() == []
    anna.client.headers.update({"origin": BASE, "sec-fetch-site": "same-origin"})
    assert anna.vote(answers_of(store)).status_code == 200


def test_only_known_hosts_are_answered(store: Store, study: Path) -> None:
    app = site(store, study, base_url="https://study.example:8443", trusted_hosts=("alias.example",))
    for host in (
        "study.example",
        "study.example:8443",
        "alias.example",
        "127.0.0.1:8080",
        "localhost",
        "[::1]:1",
    ):
        assert browser(app).get("/healthz", headers={"host": host}).status_code == 200, host
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "xstudy.example",
        "10.0.0.1",
        "",
        "a b",
        "[::2]",
        "@",
    ):
        answer = browser(app).get("/healthz", headers={"host": host})
        assert (answer.status_code, "location" in answer.headers) == (400, False), host


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "ftp://study.example"},
        {"base_url": "study.example"},
        {"base_url": "https://study.example/path"},
        {"base_url": "https://study.example:x"},
        {"trusted_hosts": ("*",)},
        {"limits": {"votes": ("1 per minute", "1 per minute")}},
    ],
)
def test_settings_that_would_open_the_server_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(StudyError, match=r"^[^\n]+$"):
        ServeSettings(**wrong)  # type: ignore[arg-type]


def test_links_cannot_be_guessed(store: Store, study: Path) -> None:
    app = site(store, study, limits={"link": ("10 per minute", "25 per minute")})
    _, token = store.invite("anna")
    guesser, anna = browser(app), browser(app, client=("192.0.2.7", 1))
    found = [guesser.get(f"/r/{number:043}").status_code for number in range(12)]
    assert found == [404] * 10 + [429] * 2
    refused = guesser.get(f"/r/{token}")  # nor is it said that this one is right
    assert (refused.status_code, int(refused.headers["retry-after"]) <= 60) == (429, True)
    assert anna.get(f"/r/{token}").status_code == 200
    # One customer has 2**64 addresses; a botnet has many customers.
    v6 = [browser(app, client=(f"2001:db8::{number}", 1)).get("/r/x").status_code for number in range(12)]
    assert v6 == [404] * 10 + [429] * 2
    more = [browser(app, client=(f"198.51.100.{n}", 1)).get("/r/x").status_code for n in range(7)]
    assert more == [404] * 5 + [429] * 2
    assert anna.get("/study").status_code == 200  # who is in stays in


def test_votes_are_limited(store: Store, study: Path) -> None:
    app = site(store, study, limits={"vote": ("3 per minute", "100 per minute")})
    anna = Visitor(browser(app), store.invite("anna")[1])
    anna.enter()
    for _ in range(3):
        assert anna.open()
        assert anna.vote(answers_of(store)).status_code == 200
    assert anna.open()
    refused = anna.vote(answers_of(store))
    assert (refused.status_code, "retry-after" in refused.headers) == (429, True)
    assert len(store.votes()) == 3


def test_the_admin_password_cannot_be_guessed(
    app: FastAPI, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(admin.time, "monotonic", lambda: clock[0])
    guesser = browser(app)

    def attempt(password: str, client: TestClient = guesser) -> tuple[int, int]:
        answer = client.post("/admin/login", data={"password": password}, follow_redirects=False)
        return answer.status_code, int(answer.headers.get("retry-after", 0))

    waits = []
    for number in range(5):
        assert attempt(f"wrong {number}") == (403, 0)
        status, wait = attempt(PASSWORD)  # the right one is not even looked at
        assert status == 429
        waits.append(wait)
        clock[0] += wait
    assert waits == [1, 2, 4, 8, 16]
    assert attempt("", browser(app))[0] == 422
    assert attempt("x" * 2000, browser(app))[0] == 422
    other = browser(app, client=("192.0.2.7", 1))
    assert attempt(PASSWORD, other) == (303, 0)
    assert attempt(PASSWORD) == (303, 0)
    assert attempt("wrong")[0] == 403
    assert attempt(PASSWORD) == (429, 1)  # it began anew


def test_admin_sessions_end(app: FastAPI, store: Store) -> None:
    client = log_in(app)
    kept = {"cookie": f"admin-8080={client.cookies['admin-8080']}"}
    assert "Log out" in browser(app).get("/admin", headers=kept).text
    client.post("/admin/logout", data={"csrf": form_token(client.get("/admin").text)})
    assert "Log out" not in client.get("/admin").text
    assert "Log out" not in browser(app).get("/admin", headers=kept).text  # nor a copy of the cookie
    client = log_in(app)
    store.set_admin(admin.hash_password("another password"))
    assert "Log out" not in client.get("/admin").text


def test_there_is_no_password_before_one_was_set(study: Path) -> None:
    store = open_study(study)
    client = browser(site(store, study))
    for password in ("", "admin", "None"):
        assert client.post("/admin/login", data={"password": password}).status_code in (403, 422)
    assert client.get("/admin").status_code == 403
    with pytest.raises(StudyError, match="12 characters"):
        admin.hash_password("too short")


def test_the_admin_page_runs_a_study(app: FastAPI, store: Store, study: Path) -> None:
    client = log_in(app)

    def send(path: str, **fields: str) -> str:
        fields["csrf"] = form_token(client.get("/admin").text)
        return str(client.post(f"/admin{path}", data=fields).text)

    page = send("/invite", label="<b>anna</b>")
    assert "<b>anna</b>" not in page
    link = re.search(r"http://127.0.0.1:8080(/r/[\w-]{43})", page)
    assert link
    assert link[0] not in client.get("/admin").text
    assert "is invited already" in send("/invite", label="<b>anna</b>")
    anna = Visitor(browser(app), link[1].removeprefix("/r/"))
    anna.enter()
    anna.open()
    assert "Closed since" in send("/state", closed="yes")
    assert anna.vote(answers_of(store)).status_code == 409
    assert "Closed since" not in send("/state", closed="no")
    assert anna.vote(answers_of(store)).status_code == 200
    number = store.raters()[0].id
    data = client.get(f"/admin/raters/{number}/data").json()
    assert data["label"] == "<b>anna</b>"
    assert [vote["answers"] for vote in data["votes"]] == [answers_of(store)]
    assert "Nothing was deleted" in send(f"/raters/{number}/delete", label="bob")
    assert "deleted with 1 votes" in send(f"/raters/{number}/delete", label="<b>anna</b>")
    assert (store.raters(), store.votes()) == ([], [])
    assert client.get(f"/admin/raters/{number}/data").status_code == 404
    report = "/admin/analysis/report.html"
    assert client.get(report).status_code == 404
    (study / admin.ANALYSIS / "tables").mkdir(parents=True)
    (study / admin.ANALYSIS / "report.html").write_text("<p>Ranking</p>")
    (study / admin.ANALYSIS / "tables" / "pairs.csv").write_text("1,2")
    assert report in client.get("/admin").text
    assert client.get(report).text == "<p>Ranking</p>"
    assert client.get("/admin/analysis/tables/pairs.csv").text == "1,2"
    for outside in ("../study.yaml", "..%2fstudy.yaml", "/etc/passwd", "%2fetc%2fpasswd", "tables"):
        assert client.get(f"/admin/analysis/{outside}").status_code == 404, outside


def test_admin_routes_need_the_admin_and_a_form_token(app: FastAPI, anna: Visitor, store: Store) -> None:
    number = store.raters()[0].id
    posts = {
        "/admin/logout": {},
        "/admin/invite": {"label": "bob"},
        "/admin/state": {"closed": "yes"},
        f"/admin/raters/{number}/delete": {"label": "anna"},
    }
    researcher = log_in(app)
    for path, fields in posts.items():
        assert anna.client.post(path, data=fields | {"csrf": anna.csrf}).status_code == 401
        assert researcher.post(path, data=fields).status_code == 403
        assert researcher.post(path, data=fields | {"csrf": anna.csrf}).status_code == 403
    for path in (f"/admin/raters/{number}/data", "/admin/analysis/report.html"):
        assert anna.client.get(path).status_code == 401
    assert (len(store.raters()), store.closed) == (1, None)


def test_texts_stay_texts_in_every_field(store: Store, study: Path) -> None:
    app = site(store, study, limits={"link": ("1000 per minute", "1000 per minute")})
    anna = Visitor(browser(app), store.invite("anna")[1])
    anna.enter()
    assert anna.open()
    researcher = log_in(app)
    token = form_token(researcher.get("/admin").text)
    for text in INJECTIONS:
        for answer in send_everywhere(text, anna, researcher, token, store):
            assert answer.status_code < 500, (answer.request.url, answer.text)
            assert "Traceback" not in answer.text
            assert "root:" not in answer.text
            assert store.secret not in answer.text
            assert "set-cookie: x" not in str(answer.headers)
    assert store.votes() == []
    assert "anna" in [rater.label for rater in store.raters()]
    assert store.closed is None


def send_everywhere(
    text: str, anna: Visitor, researcher: TestClient, token: str, store: Store
) -> list[httpx.Response]:
    """Put a text where there is a field, for a rater and for the admin."""
    answers, path = answers_of(store), quote(text, safe="%/.")
    return [
        *(anna.client.get(f"{start}{path}") for start in ("/r/", "/static/", "/", "/study?begin=")),
        anna.client.get(f"/media/{path}/left"),
        anna.client.get(f"/media/{anna.trial}/{path}"),
        anna.client.get("/study", headers={"cookie": f"rater-8080={quote(text)}"}),
        *(
            anna.client.post("/vote", json=ballot, headers={"x-csrf-token": anna.csrf})
            for ballot in (
                {"trial": text, "answers": answers, "seconds": 1},
                {"trial": anna.trial, "answers": answers | {text[:40]: "left"}, "seconds": 1},
                {"trial": anna.trial, "answers": dict.fromkeys(answers, text), "seconds": 1},
                {"trial": anna.trial, "answers": answers, "seconds": text},
                {"trial": anna.trial, "answers": answers, "seconds": 1, text: text},
                text,
                [text],
            )
        ),
        researcher.post("/admin/invite", data={"csrf": token, "label": text}),
        researcher.post("/admin/state", data={"csrf": token, "closed": text}),
        researcher.post(f"/admin/raters/{store.raters()[0].id}/delete", data={"csrf": token, "label": text}),
        researcher.get(f"/admin/raters/{path}/data"),
    ]


def test_bodies_have_a_size(anna: Visitor, store: Store) -> None:
    headers = {"x-csrf-token": anna.csrf, "content-type": "application/json"}
    limit = guards.MAX_BODY
    for body in (b" " * (limit + 1), b"[" * (limit + 1)):
        assert anna.client.post("/vote", content=body, headers=headers).status_code == 413
        chunks = (body[start : start + 1000] for start in range(0, len(body), 1000))
        assert anna.client.post("/vote", content=chunks, headers=headers).status_code == 413
    for length in ("9" * 30, "-1", "1e3", "x"):
        sent = anna.client.post("/vote", content=b"{}", headers=headers | {"content-length": length})
        assert sent.status_code == 413, length
    for body in MALFORMED:
        answer = anna.client.post("/vote", content=body, headers=headers)
        assert answer.status_code in (400, 422), body[:20]
    multipart = headers | {"content-type": "multipart/form-data; boundary=x"}
    del multipart["x-csrf-token"]
    for body in (b"", b"--x", b"--x\r\n\r\n\r\n--x--", b"--x\r\n" * 1000):
        assert anna.client.post("/vote", content=body, headers=multipart).status_code in (400, 403), body[:20]
    assert store.votes() == []


def test_a_proxy_is_believed_if_it_is_named(store: Store, study: Path) -> None:
    for believed, last in (("127.0.0.1", 404), ("", 429)):
        settings = ServeSettings(forwarded_allow_ips=believed)
        options = uvicorn_options(settings) | {"port": 0, "lifespan": "off"}
        server = uvicorn.Server(uvicorn.Config(create_app(store, study, settings), **options))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            for number in range(11):
                told = {"x-forwarded-for": f"192.0.2.{number}", "x-forwarded-host": "evil.example"}
                answer = httpx.get(f"http://127.0.0.1:{port}/r/wrong", headers=told)
                assert "server" not in answer.headers
            assert answer.status_code == last
        finally:
            server.should_exit = True
            thread.join()


def test_a_body_that_drips_is_refused(study: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "BODY_SECONDS", 0.2)
    with (
        Server(site(store, study)).running() as url,
        socket.create_connection(("127.0.0.1", int(url.rstrip("/").rpartition(":")[2])), timeout=10) as line,
    ):
        line.sendall(b"POST /vote HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        begun = time.monotonic()
        assert b" 408 " in line.recv(1000)
        assert time.monotonic() - begun < 5


def test_a_fault_of_ours_shows_nothing_of_itself(app: FastAPI) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("the secret of the server")

    for headers in ({}, PAGE):
        answer = browser(app).get("/broken", headers=headers)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text
        assert answer.headers["content-security-policy"] == guards.HEADERS["content-security-policy"]


@pytest.mark.slow
def test_no_request_of_the_schema_breaks_the_server(store: Store, study: Path) -> None:
    many = ("100000 per minute", "100000 per minute")
    app = site(store, study, limits={"link": many, "vote": many})
    anna = Visitor(browser(app), store.invite("anna")[1])
    anna.enter()
    anna.open()
    researcher = log_in(app)
    jar = {**dict(anna.client.cookies), **dict(researcher.cookies)}
    headers = {"host": "127.0.0.1:8080", "cookie": "; ".join(f"{name}={jar[name]}" for name in jar)}
    token = form_token(researcher.get("/admin").text)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=headers)
    seen: Counter[int] = Counter()
    operations = [found.ok() for found in schema.get_all_operations()]
    for operation in sorted(operations, key=lambda operation: operation.path == "/admin/logout"):
        sent = token if operation.path.startswith("/admin") else anna.csrf
        send_examples(operation, headers | {"x-csrf-token": sent}, seen)
    assert seen[200] > EXAMPLES, seen  # it is the server that was asked, not its guards alone


def send_examples(operation: schemathesis.APIOperation, headers: dict[str, str], seen: Counter[int]) -> None:
    """Requests of one route, most of them as its schema says, none of which may be answered with 5xx."""

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def send(case: schemathesis.Case) -> None:
        answer = case.call(headers=headers)
        seen[answer.status_code] += 1
        assert answer.status_code < 500, answer.text

    send()
