"""Nothing that a rater receives tells which method made a video: a whole study is crawled and searched."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import pytest
from fastapi.testclient import TestClient
from scipy.stats import binomtest

from benchmark.study.app import create_app
from benchmark.study.creation import create_study
from benchmark.study.folder import open_study
from benchmark.study.security import Security, ServeSettings
from benchmark.study.store import Store
from tests.benchmark import synthetic
from tests.benchmark.study.definitions import tiny
from tests.benchmark.study.visitors import Visitor

METHODS = ("vermilionet", "crimsonator", "scarletron")
FOLDERS = ("folder-of-v", "folder-of-c", "folder-of-s")
ITEMS = 6
RESULTS = ("left", "right")


@pytest.fixture(scope="module")
def secretive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose methods, folders, files and items have names that can be searched for."""
    root = tmp_path_factory.mktemp("kept-to-ourselves")
    synthetic.write_benchmark(root / "data", ITEMS, frames=5, side=32)
    index = root / "data" / "test.json"
    entries = {f"itemname{key}": entry for key, entry in json.loads(index.read_text()).items()}
    index.write_text(json.dumps(entries))
    for tint, folder in enumerate(FOLDERS):
        synthetic.write_results(root / "data" / folder, ITEMS, float(tint + 1), frames=5, side=32)
        for number in range(ITEMS):
            (root / "data" / folder / str(number)).rename(root / "data" / folder / f"itemname{number}")
    results = {name: root / "data" / place for name, place in zip(METHODS, FOLDERS, strict=True)}
    asked = {"pairs": 18, "raters": 30, "raters_per_pair": 10}
    create_study(tiny("Which is better?", root, results, **asked), root / "study")
    return root / "study"


@dataclass
class Received:
    """All that came over the wire: where from, headers and body."""

    answers: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    clips: dict[tuple[str, str], tuple[dict[str, str], bytes]] = field(default_factory=dict)  # by trial, slot


def crawl(store: Store, study: Path, label: str, received: Received) -> TestClient:
    """Do all that a rater can: the link, pages, files, videos and parts of them, votes, mistakes."""
    client = TestClient(create_app(store, study, ServeSettings()), "http://127.0.0.1:8080")

    def keep(answer: Any) -> Any:
        for part in (*answer.history, answer):
            received.answers.append((str(part.url), dict(part.headers), part.content))
        return answer

    client.event_hooks["response"].append(lambda answer: answer.read())
    rater = Visitor(client, store.invite(label)[1])
    answers = {question.id: "same" for question in store.definition.questions}
    keep(client.get(f"/r/{rater.token}"))
    addresses = {"/", "/study?welcome=1", "/healthz", "/favicon.ico", "/robots.txt", "/openapi.json", "/docs"}
    addresses |= {"/admin", "/media/", "/static/", "/nothing", "/media/x/left"}
    while rater.open():
        page = keep(client.get("/study?begin=1"))
        addresses |= set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text))
        for slot in ("source", *RESULTS):
            answer = keep(client.get(f"/media/{rater.trial}/{slot}"))
            received.clips[rater.trial, slot] = (dict(answer.headers), answer.content)
            keep(client.get(f"/media/{rater.trial}/{slot}", headers={"range": "bytes=10-50"}))
        assert keep(rater.vote(answers)).json()["new"]
        last = rater.trial
    rater.trial = last
    keep(rater.vote({}))
    keep(rater.vote(dict.fromkeys(answers, "left")))
    for end, part in (("middle", "bytes=0-"), ("left", "bytes=999999999-")):
        keep(client.get(f"/media/{last}/{end}", headers={"range": part}))
    for address in sorted(addresses):
        for kind in ("text/html", "*/*"):
            keep(client.get(address, headers={"accept": kind}))
    keep(client.get("/done"))
    return client


@pytest.fixture(scope="module")
def crawled(secretive: Path) -> Iterator[tuple[Store, Received, TestClient]]:
    store, received = open_study(secretive), Received()
    store.invite("someone else")
    client = crawl(store, secretive, "anna", received)
    yield store, received, client
    store.engine.dispose()


def test_no_answer_names_a_method_a_file_or_an_item(
    crawled: tuple[Store, Received, TestClient], secretive: Path
) -> None:
    store, received, _ = crawled
    votes = store.votes()
    assert {vote.kind for vote in votes} == {"practice", "pair", "gold_tie", "gold_loss", "repeat"}
    assert {vote.left for vote in votes} == set(METHODS)
    words = {*METHODS, *FOLDERS, "itemname", "generate", "kept-to-ourselves", str(secretive), store.secret}
    words |= {"gold", "corrupt", "expected", "someone else", "flipped", "crimson", "vermilion", "scarlet"}
    words |= {path.stem for path in (secretive.parent / "data" / "videos").iterdir()}
    words |= {path.stem for path in (secretive / "media").iterdir()}
    words |= {vote.category for vote in votes} - {"unknown"}
    forms = {form for word in words for form in spellings(word)}
    assert len(received.answers) > 100
    for address, headers, body in received.answers:
        text = (address + json.dumps(headers)).lower().encode() + body.lower()
        for form in forms:
            assert form not in text, (form, address)


def spellings(word: str) -> set[bytes]:
    """A word as it may stand in bytes: as it is, in base64 at each of three offsets, in hexadecimal."""
    plain = word.lower().encode()
    found = {plain, plain.hex().encode(), plain.decode().encode("utf-16-le")}
    for offset in range(3):
        coded = base64.b64encode(b"\0" * offset + word.encode()).decode()
        inner = coded[(offset * 8 + 5) // 6 : len(coded) - 4].lower()
        if len(inner) >= 6:
            found.add(inner.encode())
    return found


def test_a_session_says_who_and_since_when_and_no_more(crawled: tuple[Store, Received, TestClient]) -> None:
    store, _, client = crawled
    cookies = dict(client.cookies)
    assert list(cookies) == ["rater-8080"]
    content = Security(store, ServeSettings()).sessions.loads(cookies["rater-8080"])
    assert set(content) == {"for", "rater", "since", "nonce"}


def test_videos_of_a_pair_differ_in_their_pictures_alone(crawled: tuple[Store, Received, TestClient]) -> None:
    store, received, _ = crawled
    for vote in store.votes():
        clips = [received.clips[vote.trial, slot] for slot in RESULTS]
        tags = [headers.pop("etag") for headers, _ in clips]
        assert tags[0] != tags[1]
        assert clips[0][0] == clips[1][0], "headers differ"
        assert "last-modified" not in clips[0][0]
        assert "content-disposition" not in clips[0][0]
        assert facts(clips[0][1]) == facts(clips[1][1])
        assert len(clips[0][1]) == len(clips[1][1])
        assert (clips[0][1] == clips[1][1]) == (vote.kind == "gold_tie")
    headers = [dict(headers) for headers, _ in received.clips.values()]
    for found in headers:
        for name in ("etag", "content-length"):
            found.pop(name, None)
    assert all(found == headers[0] for found in headers)


def facts(video: bytes) -> Any:
    """All that a container says of its contents but for the pictures and where they lie."""
    with av.open(io.BytesIO(video)) as container:
        assert len(container.streams) == 1
        stream = container.streams.video[0]
        sizes = (stream.width, stream.height, stream.frames, stream.average_rate, stream.time_base)
        codec = (stream.codec_context.name, stream.codec_context.pix_fmt, stream.codec_context.profile)
        packets = [(p.pts, p.dts, p.is_keyframe) for p in container.demux(stream)]
        return container.metadata, stream.metadata, sizes, codec, container.duration, len(packets)


@pytest.mark.slow
def test_neither_side_nor_tag_nor_size_predicts_the_method(secretive: Path, tmp_path: Path) -> None:
    store = open_study(secretive)
    app = create_app(store, secretive, ServeSettings())
    answers = {question.id: "left" for question in store.definition.questions}
    shown: dict[str, dict[str, dict[str, str]]] = {}
    for number in range(12):
        client = TestClient(app, "http://127.0.0.1:8080")
        rater = Visitor(client, store.invite(f"rater {number}")[1])
        rater.enter()
        while rater.open():
            shown[rater.trial] = {
                slot: dict(client.get(f"/media/{rater.trial}/{slot}", headers={"range": "bytes=0-0"}).headers)
                for slot in RESULTS
            }
            assert rater.vote(answers).status_code == 200
    signs: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    for vote in store.votes():
        if vote.trial not in shown or vote.left == vote.right:
            continue
        left, right = (shown[vote.trial][slot] for slot in RESULTS)
        assert left["content-range"] == right["content-range"]  # the same size
        pair = (min(vote.left, vote.right), max(vote.left, vote.right))
        first_is_left = vote.left == pair[0]
        signs[(*pair, "side")].append(first_is_left)
        signs[(*pair, "tag")].append((left["etag"] < right["etag"]) == first_is_left)
    assert len(signs) == 6
    for sign, seen in signs.items():
        assert len(seen) >= 20
        # What would be certain of the method has a chance below 1e-6 here; luck fails this once in 30,000.
        assert binomtest(sum(seen), len(seen)).pvalue > 1e-5, (sign, sum(seen), len(seen))
    store.engine.dispose()
