"""Votes are never lost and never counted twice: killed servers, full disks, locked databases, two at once."""

from __future__ import annotations

import json
import random
import resource
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from benchmark.study import database
from benchmark.study.app import create_app
from benchmark.study.creation import create_study
from benchmark.study.definition import StudyDefinition
from benchmark.study.folder import SQLITE, open_study
from benchmark.study.records import SIDES
from benchmark.study.security import ServeSettings
from benchmark.study.store import Store
from tests.benchmark.study.postgres import Postgres, postgres
from tests.benchmark.study.visitors import Server, Visitor

RATERS = 50
JSON = {"content-type": "application/json"}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def crowd(definition: StudyDefinition) -> StudyDefinition:
    """The tiny study for fifty raters, of four or five pairs each."""
    changed = {"pairs": 18, "raters": RATERS, "raters_per_pair": 10}
    changed |= {"practice": 0, "gold_ties": 0}
    return StudyDefinition.model_validate(definition.model_dump() | changed)


@dataclass
class Acknowledged:
    """What raters were told; `new` is False where a vote was sent again."""

    votes: dict[str, dict[str, str]] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def rate_all(url: str, token: str, questions: list[str], told: Acknowledged, deadline: float) -> None:
    """Vote on every pair of a list as the page does: what was not acknowledged is sent again."""
    luck = random.Random(token)
    # certificates are not needed, and take long to load
    with httpx.Client(base_url=url, timeout=30, verify=False) as client:
        rater = Visitor(client, token)

        def until_it_works(step: object) -> object:
            while time.monotonic() < deadline:
                try:
                    return step()  # type: ignore[operator]
                except (httpx.TransportError, httpx.HTTPStatusError):
                    time.sleep(luck.uniform(0.3, 0.7))
            raise TimeoutError("the server did not come back")

        until_it_works(rater.enter)
        while until_it_works(rater.open):
            answers = {question: luck.choice(SIDES) for question in questions}

            def send(answers: dict[str, str] = answers) -> httpx.Response:
                return rater.vote(answers).raise_for_status()

            said = until_it_works(send)
            assert isinstance(said, httpx.Response)
            with told.lock:
                told.votes[rater.trial] = answers
                (told.new if said.json()["new"] else told.again).append(rater.trial)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_no_acknowledged_vote_is_lost_when_the_server_is_killed_twice(
    crowd: StudyDefinition, tmp_path: Path, cluster: Postgres, backend: str
) -> None:
    folder = tmp_path / "study"
    create_study(crowd, folder, cluster.database() if backend == "postgresql" else None)
    store = open_study(folder)
    tokens = [store.invite(f"rater {number}")[1] for number in range(RATERS)]
    total = sum(store.totals.values())
    store.engine.dispose()
    questions = [question.id for question in crowd.questions]
    told, server = Acknowledged(), Server(folder, free_port())
    deadline = time.monotonic() + 240
    server.start()
    with ThreadPoolExecutor(RATERS) as pool:
        work = [pool.submit(rate_all, server.url, token, questions, told, deadline) for token in tokens]
        for share in (1 / 3, 2 / 3):
            while len(told.votes) < share * total:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            server.kill()
            server.start()
        for done in work:
            done.result()
    printed = server.stop()
    assert "Traceback" not in printed, printed
    stored = open_study(folder).votes()
    assert len(stored) == total == len({vote.trial for vote in stored})
    assert {vote.trial: vote.answers for vote in stored} == told.votes
    assert len(told.new) == len(set(told.new))  # no vote was taken twice
    assert len(told.new) + len(told.again) == total
    assert all(0 <= vote.seconds < 240 for vote in stored)


@contextmanager
def visitor_of(study: Path, label: str = "anna") -> Iterator[tuple[Visitor, Store]]:
    """A rater before their first pair, at the application itself."""
    store = open_study(study)
    _, token = store.invite(label)
    app = create_app(store, study, ServeSettings())
    with TestClient(app, "http://127.0.0.1:8080", raise_server_exceptions=False) as client:
        rater = Visitor(client, token)
        rater.enter()
        assert rater.open()
        yield rater, store
    store.engine.dispose()


@pytest.fixture
def anna(study: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Visitor, Store]]:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    with visitor_of(study) as found:
        yield found


@contextmanager
def full_disk(study: Path) -> Iterator[None]:
    """No file of this process may grow, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def locked_database(study: Path) -> Iterator[None]:
    """Someone else writes, and does not end."""
    with closing(sqlite3.connect(study / SQLITE, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.parametrize("fault", [full_disk, locked_database])
def test_a_vote_that_cannot_be_stored_is_refused_for_now_and_taken_later(
    anna: tuple[Visitor, Store], study: Path, fault: Callable[[Path], AbstractContextManager[None]]
) -> None:
    rater, store = anna
    answers = dict.fromkeys((question.id for question in store.definition.questions), "left")
    with fault(study):
        for _ in range(2):
            answer = rater.vote(answers)
            assert answer.status_code == 503, answer.text
            assert answer.headers["retry-after"] == "2"
            assert "try again" in answer.json()["detail"]
        assert store.votes() == []
        media = rater.client.get(f"/media/{rater.trial}/left")  # who looks at a pair is not disturbed
        assert media.status_code == 200
    assert rater.vote(answers).json() == {"saved": True, "new": True}
    assert rater.vote(answers).json() == {"saved": True, "new": False}
    assert [(vote.trial, vote.answers) for vote in store.votes()] == [(rater.trial, answers)]


def test_a_study_that_is_closed_takes_no_vote_but_knows_those_it_has(anna: tuple[Visitor, Store]) -> None:
    rater, store = anna
    answers = dict.fromkeys((question.id for question in store.definition.questions), "same")
    assert rater.vote(answers).status_code == 200
    first = rater.trial
    assert rater.open()
    store.close()
    refused = rater.vote(answers)
    assert (refused.status_code, refused.json()["reason"]) == (409, "closed")
    rater.trial = first  # the acknowledgement was lost on the way
    assert rater.vote(answers).json() == {"saved": True, "new": False}
    store.close(False)
    assert len(store.votes()) == 1


def test_what_does_not_fit_a_pair_is_refused(anna: tuple[Visitor, Store]) -> None:
    rater, store = anna
    questions = [question.id for question in store.definition.questions]
    answers = dict.fromkeys(questions, "left")
    assert rater.vote(answers).status_code == 200
    other = rater.vote(dict.fromkeys(questions, "right"))
    assert (other.status_code, other.json()["reason"]) == (409, "answered")
    assert rater.open()
    mine = rater.trial
    bob, _ = store.invite("bob")
    theirs = store.next_trial(bob)
    assert theirs is not None
    for trial in (theirs.id, "0" * 32, "x", "' OR 1=1 --", "\x00", "../../study.yaml"):
        rater.trial = trial
        assert (rater.vote(answers).status_code, rater.vote(answers).json()["reason"]) == (409, "unknown")
    rater.trial = mine
    for wrong in ({}, {questions[0]: "left"}, answers | {"more": "left"}):
        assert (rater.vote(wrong).status_code, rater.vote(wrong).json()["reason"]) == (409, "answers")
    assert rater.vote(answers | {questions[0]: "both"}).status_code == 422
    for seconds in (float("nan"), float("inf"), -1.0):
        ballot = json.dumps({"trial": mine, "answers": answers, "seconds": seconds})
        sent = rater.client.post("/vote", content=ballot, headers=JSON | {"x-csrf-token": rater.csrf})
        assert sent.status_code == 422
    assert [vote.answers for vote in store.votes()] == [answers]


def vote_at_once(study: Path) -> list[bool]:
    """The same vote in eight requests at once; who was told that theirs is new."""
    with visitor_of(study) as (rater, store):
        answers = dict.fromkeys((question.id for question in store.definition.questions), "right")
        with ThreadPoolExecutor(8) as pool:
            said = list(pool.map(lambda _: rater.vote(answers), range(8)))
        assert [answer.status_code for answer in said] == [200] * 8
        assert len(store.votes()) == 1
        return sorted(answer.json()["new"] for answer in said)


def test_of_votes_at_once_one_counts(study: Path) -> None:
    assert vote_at_once(study) == [False] * 7 + [True]


@pytest.mark.slow
def test_a_crash_of_postgresql_costs_no_vote(
    definition: StudyDefinition, tmp_path: Path, cluster: Postgres
) -> None:
    create_study(definition, tmp_path / "study", cluster.database())
    assert vote_at_once(tmp_path / "study") == [False] * 7 + [True]
    with visitor_of(tmp_path / "study", "bob") as (rater, store):
        answers = dict.fromkeys((question.id for question in store.definition.questions), "left")
        assert rater.vote(answers).status_code == 200
        assert rater.open()
        cluster.stop(crash=True)
        refused = rater.vote(answers)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        cluster.start()
        assert rater.vote(answers).json() == {"saved": True, "new": True}
        assert len(store.votes()) == 3
