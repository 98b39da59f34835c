"""The study's pages and texts over HTTP, without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from sqlalchemy import text
from starlette.testclient import TestClient

from benchmark.core.item import BenchmarkError
from benchmark.study.app import create_app
from benchmark.study.folder import open_study
from benchmark.study.security import ServeSettings
from benchmark.study.serve import serve
from benchmark.study.store import Store
from benchmark.study.texts import FOLDER, OWN, keep_texts, read_texts

HTML = {"accept": "text/html"}


@pytest.fixture
def store(study: Path) -> Store:
    return open_study(study)


@pytest.fixture
def client(study: Path, store: Store) -> Iterator[TestClient]:
    """A browser that has opened a rater's link."""
    app = create_app(store, study, ServeSettings(base_url="http://127.0.0.1"))
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False, headers=HTML) as client:
        _, token = store.invite("anna")
        assert client.get(f"/r/{token}").status_code == 200
        yield client


def on_page(page: str, name: str) -> str:
    """A data attribute of a pair's page."""
    found = re.search(f'data-{name}="([^"]*)"', page)
    assert found, page
    return found[1]


def test_the_first_visit_is_welcomed_and_later_ones_go_on(client: TestClient, store: Store) -> None:
    assert "Welcome" in client.get("/study").text
    page = client.get("/study?begin=1").text
    assert "Comparison 1 of 12" in page
    assert "Practice." in page
    vote = {"trial": on_page(page, "trial"), "answers": dict.fromkeys(criteria(store), "same"), "seconds": 5}
    headers = {"x-csrf-token": on_page(page, "csrf")}
    assert client.post("/vote", json=vote, headers=headers).json() == {"saved": True, "new": True}
    assert client.post("/vote", json=vote, headers=headers).json() == {"saved": True, "new": False}
    page = client.get("/study").text
    assert "Comparison 2 of 12" in page
    assert "Practice is over" in page
    assert client.get("/done").url.path == "/study"  # there are pairs left
    assert "Welcome" in client.get("/study?welcome=1").text


def criteria(store: Store) -> list[str]:
    return [question.id for question in store.definition.questions]


def test_a_vote_that_is_not_taken_says_why_in_the_language_of_the_page(
    client: TestClient, store: Store
) -> None:
    page = client.get("/study?begin=1").text
    headers = {"x-csrf-token": on_page(page, "csrf"), "accept": "application/json"}
    same, left = dict.fromkeys(criteria(store), "same"), dict.fromkeys(criteria(store), "left")
    trial = on_page(page, "trial")

    def refusal(trial: str, answers: dict[str, str]) -> str:
        vote = {"trial": trial, "answers": answers, "seconds": 1}
        answer = client.post("/vote", json=vote, headers=headers)
        assert answer.status_code == 409
        said = answer.json()
        assert said["detail"] == read_texts("en")[f"refused_{said['reason']}"]
        return str(said["reason"])

    assert refusal(trial, {"alignment": "same"}) == "answers"
    assert refusal("nobodys", same) == "unknown"
    rater = store.raters()[0]
    store.record(rater, trial, same, 1)  # type: ignore[arg-type]
    assert refusal(trial, left) == "answered"
    store.close()
    other = store.next_trial(rater)
    assert other is not None
    assert refusal(other.id, same) == "closed"
    assert "The study is closed" in client.get("/study").text


def test_videos_come_in_ranges_and_nothing_of_a_file_is_said(
    client: TestClient, store: Store, study: Path
) -> None:
    trial = on_page(client.get("/study?begin=1").text, "trial")
    answers = {slot: client.get(f"/media/{trial}/{slot}") for slot in ("source", "left", "right")}
    rater = store.raters()[0]
    for slot, answer in answers.items():
        name = store.media(rater, trial, slot)  # type: ignore[arg-type]
        assert answer.content == (study / "media" / str(name)).read_bytes()
        assert not {"last-modified", "content-disposition"} & set(answer.headers)
    tags = {answer.headers["etag"] for answer in answers.values()}
    assert len(tags) == 3
    url, tag = f"/media/{trial}/left", answers["left"].headers["etag"]
    part = client.get(url, headers={"range": "bytes=10-19", "if-range": tag})
    assert (part.status_code, part.content) == (206, answers["left"].content[10:20])
    assert "last-modified" not in part.headers
    assert client.get(url, headers={"range": "bytes=10-19", "if-range": '"other"'}).status_code == 200
    assert client.get(url, headers={"if-none-match": tag}).status_code == 304
    assert client.get(url, headers={"range": "bytes=99999999-"}).status_code == 416
    assert client.get(f"/media/{trial}/first").status_code == 422
    _, token = store.invite("ben")  # whose list has other trials
    client.get(f"/r/{token}")
    assert client.get(url).status_code == 404


def test_errors_are_pages_of_the_study(client: TestClient, store: Store, study: Path) -> None:
    missing = client.get("/nowhere")
    assert (missing.status_code, "There is no such page" in missing.text) == (404, True)
    assert client.get("/nowhere", headers={"accept": "application/json"}).json() == {"detail": "Not Found"}
    stranger = client.get("/r/0123")
    assert (stranger.status_code, "This link does not work" in stranger.text) == (404, True)
    trial = store.next_trial(store.raters()[0])
    assert trial is not None
    (study / "media" / str(store.media(store.raters()[0], trial.id, "right"))).unlink()
    broken = client.get("/study?begin=1")
    assert (broken.status_code, "tell the organisers" in broken.text) == (500, True)
    with store.engine.begin() as connection:
        connection.execute(text("ALTER TABLE trial RENAME TO away"))
    busy = client.get("/study?begin=1")
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "10")
    assert 'http-equiv="refresh" content="10"' in busy.text
    client.cookies.clear()
    outside = client.get("/study")
    assert (outside.status_code, "Your personal link is needed" in outside.text) == (401, True)


def test_a_study_speaks_the_language_of_its_own_file(
    client: TestClient, store: Store, study: Path, tmp_path: Path
) -> None:
    german = read_texts("en") | {"lang": "de", "welcome": "Willkommen", "progress": "{position}/{total}"}
    (tmp_path / "de.yaml").write_text(yaml.safe_dump(german, allow_unicode=True))
    keep_texts(study, str(tmp_path / "de.yaml"))
    app = create_app(store, study, ServeSettings(base_url="http://127.0.0.1"))
    with TestClient(app, "http://127.0.0.1", headers=HTML, cookies=client.cookies) as german_client:
        page = german_client.get("/study").text
    assert '<html lang="de"' in page
    assert "Willkommen" in page
    keep_texts(tmp_path, "en")  # comes with us
    assert not (tmp_path / OWN).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"send": None}, "should map names to texts"),
        ({"sned": "Send"}, "sned: is no text of the pages"),
        ({"progress": "{position} von {alle}"}, "progress: should have {position} and {total} in braces"),
        ({"progress": "{position"}, "progress: expected '}' before end of string"),
        ({"send": ...}, "send: is missing (1 in all)"),
    ],
)
def test_texts_that_lack_something_are_refused_by_name(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    texts = {name: text for name, text in (read_texts("en") | change).items() if text is not ...}
    path = tmp_path / "xx.yaml"
    path.write_text(yaml.safe_dump(texts))
    with pytest.raises(BenchmarkError, match=re.escape(message)) as refused:
        read_texts(str(path))
    assert str(path) in str(refused.value)


def test_a_language_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(BenchmarkError, match=r"language: tlh: is neither a language \(en\) nor a file"):
        read_texts("tlh")
    assert [path.stem for path in FOLDER.glob("*.yaml")] == ["en"]


@pytest.mark.parametrize(
    ("host", "settings", "insecure", "message"),
    [
        ("192.0.2.1", None, False, "without encryption"),
        ("0.0.0.0", ServeSettings(base_url="http://study.example.org"), False, "without encryption"),
        ("0.0.0.0", None, True, "needs --base-url"),
    ],
)
def test_other_machines_are_served_with_encryption_alone_unless_told(
    study: Path, host: str, settings: ServeSettings | None, insecure: bool, message: str
) -> None:
    with pytest.raises(BenchmarkError, match=message):
        serve(study, host, 0, settings, insecure, 1)
