"""The judge behind a real HTTP endpoint that misbehaves in every way we could think of."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openai
import pytest
import yaml

from benchmark.core.item import BenchmarkError, Geometry, Loaded, Reference, Unscored, Worded
from benchmark.judges.image_judge import PictureJudge
from benchmark.judges.judge import Judge, judged
from benchmark.judges.video_judge import VideoJudge
from benchmark.metrics.config import read_metrics
from curation.vlm.endpoint import Endpoint
from tests.benchmark.local import TinyReward
from tests.benchmark.stub import GOOD, Reply, Stub, responded, said


@pytest.fixture
def stub() -> Iterator[Stub]:
    served = Stub()
    yield served
    served.server.shutdown()


@pytest.fixture
def endpoint(stub: Stub) -> Endpoint:
    """Patient: what is not answered in time is asked again, and a test counts."""
    return Endpoint(stub.url, "m", timeout=60, retries=2)


@pytest.fixture
def hasty(stub: Stub) -> Endpoint:
    """For what does not come in time."""
    return Endpoint(stub.url, "m", timeout=0.5, retries=2)


def pair(frames: int = 9, prompts: dict[str, str] | None = None) -> tuple[Reference, np.ndarray]:
    """A source of a reddish and a result of a bluish colour, that say which frame they are."""
    source = np.zeros((frames, 32, 32, 3), np.uint8)
    source[..., 0], source[..., 1] = 200, np.arange(frames)[:, None, None] * 20
    result = source[..., ::-1].copy()
    told = {"instruction": "Make it blue."} if prompts is None else prompts
    return Reference(Loaded(source, result, None, 10.0, {}), Geometry(frames, 32, 32, 10.0), told), result


def pictures(request: dict[str, Any]) -> list[np.ndarray]:
    """The pictures of a request, decoded, RGB."""
    found = []
    for part in request["messages"][0]["content"]:
        if part["type"] == "image_url":
            data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            found.append(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])
    return found


def test_three_grades_of_three_frames(stub: Stub, endpoint: Endpoint) -> None:
    totals = iter(["3 2 1", "0 0 0", "3 3 3"])

    def reply(n: int, request: dict[str, Any]) -> Reply:
        grades = dict(
            zip(("instruction", "preservation", "quality"), map(int, next(totals).split()), strict=True)
        )
        return said(f"Here you are:\n```json\n{json.dumps(grades)}\n```")

    stub.reply = reply
    assert Judge(endpoint, concurrency=1)(*pair()) == pytest.approx((6 + 0 + 9) / 3)
    assert len(stub.requests) == 3
    for request, frame in zip(stub.requests, (0, 4, 8), strict=True):
        before, after = pictures(request)
        assert np.abs(before.astype(int) - (200, 20 * frame, 0)).max() < 12
        assert np.abs(after.astype(int) - (0, 20 * frame, 200)).max() < 12
        assert "Make it blue." in request["messages"][0]["content"][-1]["text"]
        assert request["temperature"] == 0


@pytest.fixture
def wordings(tmp_path: Path) -> dict[str, str]:
    """Files with wordings of ours for both calls of the official judge."""
    (tmp_path / "prompt.txt").write_text("Judge this: {instruction}\nTotal Score: [sum]\n")
    (tmp_path / "extract.txt").write_text("Which total? {review}")
    return {"prompt": str(tmp_path / "prompt.txt"), "extract": str(tmp_path / "extract.txt")}


def test_official_asks_twice_and_again_where_there_is_no_total(
    stub: Stub, endpoint: Endpoint, wordings: dict[str, str]
) -> None:
    answers = ["Well done.\nTotal Score: 7", "7", "So so.", "Total: 5", "So so.", "5", "Bad.", "0"]
    stub.reply = lambda n, request: responded(answers[n])
    judge = Judge(endpoint, concurrency=1, mode="official", **wordings)
    assert judge(*pair()) == pytest.approx((7 + 5 + 0) / 3)
    assert "Total: 5" not in str(stub.requests[4])
    assert "So so." in str(stub.requests[3])


def test_official_requests_are_the_published_ones_to_the_byte(
    stub: Stub, endpoint: Endpoint, wordings: dict[str, str]
) -> None:
    """As automatic_evaluation/editing_vlm_evaluation.py of adobe-research/EditVerse (eeca9ce) builds them.

    Its calls are written out here, with nothing of ours. The frames go to OpenCV in RGB, which takes them for
    BGR.
    """
    stub.reply = lambda n, request: responded("Fine. Total Score: 7" if n % 2 == 0 else "7")
    reference, result = pair(prompts={"instruction": "Make it blue.", "text": "<video1> Make it “blue”."})
    assert Judge(endpoint, concurrency=1, mode="official", **wordings)(reference, result) == 7

    plain = openai.OpenAI(api_key="x", base_url=stub.url)
    asked, stub.bodies, stub.paths = stub.bodies, [], []

    def picture(frame: np.ndarray) -> dict[str, str]:
        _, buffer = cv2.imencode(".jpg", np.array(frame))
        url = f"data:image/jpeg;base64,{base64.b64encode(buffer).decode('utf-8')}"
        return {"type": "input_image", "image_url": url}

    for n in range(0, 9, 9 // 3):
        text = "Judge this: <video1> Make it “blue”.\nTotal Score: [sum]\n"
        first = [{"type": "input_text", "text": text}, picture(reference.original[n]), picture(result[n])]
        second = [{"type": "input_text", "text": "Which total? Fine. Total Score: 7"}]
        for content in (first, second):
            given: Any = [{"role": "user", "content": content}]
            plain.responses.create(temperature=0, model="m", input=given)
    assert asked == stub.bodies
    assert json.loads(asked[1]) == {"temperature": 0, "model": "m", "input": given}
    assert set(stub.paths) == {"/v1/responses"}


def test_imgedits_request_is_the_published_one_to_the_byte(
    stub: Stub, endpoint: Endpoint, tmp_path: Path
) -> None:
    """As Benchmark/Basic/basic_bench.py of PKU-YuanGroup/ImgEdit (547185d): the files as they are."""
    stub.reply = lambda n, request: said("Reason: fine\nInstruction: 5\nDetail: 4\nQuality: 3")
    (tmp_path / "prompts.json").write_text(json.dumps({"style": "Rate <edit_prompt> now."}))
    before = cv2.imencode(".jpg", np.full((8, 8, 3), 90, np.uint8))[1].tobytes()
    (tmp_path / "1.png").write_bytes(cv2.imencode(".png", np.full((8, 8, 3), 7, np.uint8))[1].tobytes())
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    reference = Reference(
        Loaded(frames, None, None, 10.0, {"image1": before}),
        Geometry(1, 8, 8, 10.0),
        {"instruction": "Paint it.", "kind": "style"},
    )
    judge = PictureJudge(endpoint, str(tmp_path / "prompts.json"), mode="official")
    assert judge(reference, frames, file=tmp_path / "1.png") == 4
    files = [before, (tmp_path / "1.png").read_bytes()]
    urls = [f"data:image/png;base64,{base64.b64encode(file).decode()}" for file in files]
    content = [{"type": "text", "text": "Rate Paint it. now."}]
    content += [{"type": "image_url", "image_url": {"url": url}} for url in urls]  # type: ignore[dict-item]
    given: Any = [{"role": "user", "content": content}]
    openai.OpenAI(api_key="x", base_url=stub.url).chat.completions.create(
        model="m", stream=False, messages=given
    )
    assert stub.bodies[0] == stub.bodies[1]
    assert json.loads(stub.bodies[0]) == {"model": "m", "stream": False, "messages": given}


@pytest.mark.parametrize(
    ("frames", "count"),
    [(3, 3), (6, 3), (9, 3), (12, 3), (4, 4), (7, 4), (8, 4), (10, 4), (11, 4), (13, 4), (5, 5)],
)
def test_official_frames(frames: int, count: int) -> None:
    """3, 4 or 5 by the clip's length, without the last frame where 3 divides it."""
    chosen = judged(frames, "official")
    assert isinstance(chosen, list)
    assert len(chosen) == count
    assert frames % 3 or frames == 3 or frames - 1 not in chosen
    assert judged(frames, "corrected") == sorted({0, round((frames - 1) / 2), frames - 1})


def test_too_few_frames_for_the_published_code() -> None:
    for frames in (1, 2):
        assert isinstance(judged(frames, "official"), Unscored)
        assert judged(frames, "corrected") == list(range(frames))


MISBEHAVIOURS: dict[str, Callable[[int, dict[str, Any]], Reply]] = {
    "timeout": lambda n, r: time.sleep(1.0) or said(GOOD),  # type: ignore[func-returns-value]
    "too many requests": lambda n, r: (429, {"Retry-After": "0.05"}, "{}"),
    "server error": lambda n, r: (500, {}, "oops"),
    "html": lambda n, r: (200, {"Content-Type": "text/html"}, "<html><body>Sign in</body></html>"),
    "prose": lambda n, r: said("I think that this edit is rather good, seven or eight."),
    "ten of nine": lambda n, r: said('{"instruction": "10/9", "preservation": 2, "quality": 1}'),
    "out of range": lambda n, r: said('{"instruction": 4, "preservation": 2, "quality": 1}'),
    "empty": lambda n, r: said(""),
    "wrong language": lambda n, r: said('{"指示": 3, "保存": 2, "质量": 1}'),
    "truncated": lambda n, r: said(GOOD[:30], finish_reason="length"),
    "refusal": lambda n, r: said(None, refusal="I cannot help with this picture."),
    "filtered": lambda n, r: said(None, finish_reason="content_filter"),
    "bad request": lambda n, r: (400, {}, '{"error": {"message": "content management policy"}}'),
}


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_every_misbehaviour_ends_with_a_reason(stub: Stub, hasty: Endpoint, name: str) -> None:
    stub.reply = MISBEHAVIOURS[name]
    score = Judge(hasty, concurrency=1)(*pair())
    assert isinstance(score, Unscored)
    assert score.reason.startswith("frame 0: ")
    assert len(score.reason) > 20
    assert 1 <= len(stub.requests) <= 9  # three answers, each of at most three tries


def test_what_passes_is_waited_for(stub: Stub, endpoint: Endpoint) -> None:
    """A limit, a fault and prose, then what was asked for: scored."""
    first: list[Reply] = [(429, {"Retry-After": "0.2"}, "{}"), (503, {}, ""), said("Good."), said(GOOD)]
    times: list[float] = []

    def reply(n: int, request: dict[str, Any]) -> Reply:
        times.append(time.monotonic())
        return first[n] if n < len(first) else said(GOOD)

    stub.reply = reply
    assert Judge(endpoint, concurrency=1)(*pair()) == 6
    assert times[1] - times[0] >= 0.2
    assert len(times) == 6
    assert "wrong" in str(stub.requests[3]) or "no JSON" in str(stub.requests[3])  # it is told what was wrong


def test_bad_prompts_are_named(endpoint: Endpoint, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="name it by `prompt`"):
        Judge(endpoint, concurrency=1, mode="official")
    with pytest.raises(BenchmarkError, match="name it by `extract`"):
        Judge(endpoint, concurrency=1, mode="official", prompt=str(tmp_path / "p.txt"))
    (tmp_path / "p.txt").write_text("Judge.")
    with pytest.raises(BenchmarkError, match=r"p\.txt: no \{instruction\}"):
        Judge(endpoint, concurrency=1, prompt=str(tmp_path / "p.txt"))
    with pytest.raises(BenchmarkError, match="cannot be read"):
        Judge(endpoint, concurrency=1, prompt=str(tmp_path / "none.txt"))
    assert Judge(endpoint, concurrency=1)(*pair(prompts={"target": "x"})) == Unscored(
        "the item has no instruction"
    )


def test_tokens_requests_and_cost_are_counted_with_the_score(stub: Stub) -> None:
    def reply(n: int, request: dict[str, Any]) -> Reply:
        status, headers, body = said(GOOD if n else "no JSON")
        told = json.loads(body) | {
            "usage": {"prompt_tokens": 700, "completion_tokens": 20, "total_tokens": 720}
        }
        return status, headers, json.dumps(told)

    stub.reply = reply
    priced = Endpoint(stub.url, "m", timeout=5, retries=2, prices=(2.5, 10.0))
    score = Judge(priced, concurrency=1)(*pair())
    assert isinstance(score, Worded)
    assert score.usage == {
        "requests": 4,  # the first answer did not fit
        "prompt_tokens": 2800,
        "completion_tokens": 80,
        "cost_millionths": 4 * (1750 + 200),
    }


def test_a_schema_is_sent_where_the_endpoint_takes_one(stub: Stub) -> None:
    Judge(Endpoint(stub.url, "m", timeout=5, structured=True))(*pair())
    for request in stub.requests:
        told = request["response_format"]
        assert told["type"] == "json_schema"
        assert set(told["json_schema"]["schema"]["properties"]) >= {"instruction", "preservation", "quality"}
        assert set(told["json_schema"]["schema"]["required"]) == set(
            told["json_schema"]["schema"]["properties"]
        )
    Judge(Endpoint(stub.url, "m", timeout=5))(*pair())
    assert "response_format" not in stub.requests[-1]


def test_a_judge_of_videos_shows_both_whole_with_their_times(stub: Stub, endpoint: Endpoint) -> None:
    assert VideoJudge(endpoint, frames=5)(*pair()) == 6
    (request,) = stub.requests
    parts = request["messages"][0]["content"]
    labels = [part["text"] for part in parts if part["type"] == "text"]
    times = ("0.00", "0.20", "0.40", "0.60", "0.80")  # frames 0, 2, 4, 6, 8 at 10 a second
    assert labels[:-1] == [f"Video {video}, {t} s:" for video in (1, 2) for t in times]
    assert "Make it blue." in labels[-1]
    shown = pictures(request)
    for number, frame in enumerate((0, 2, 4, 6, 8)):
        assert np.abs(shown[number].astype(int) - (200, 20 * frame, 0)).max() < 12
        assert np.abs(shown[5 + number].astype(int) - (0, 20 * frame, 200)).max() < 12


def test_columns_of_a_reward_model_share_its_answer(tmp_path: Path) -> None:
    models = {"tiny": {"class_path": "tests.benchmark.local.TinyReward", "init_args": {"seed": 3}}}
    kind = "benchmark.judges.reward_model.RewardModel"
    entries = [
        {"class_path": kind, "init_args": {"model": "tiny", "dimension": d}} for d in ("IF", "RQ", "EE", "XX")
    ]
    file = tmp_path / "metrics.yaml"
    file.write_text(yaml.safe_dump({"models": models, "metrics": entries}))
    *metrics, unknown = read_metrics(file, "corrected")
    reference, result = pair()
    found = [metric(reference, result) for metric in metrics]
    wanted = TinyReward(3).rewards(reference.source, result, 10.0, "Make it blue.")
    assert found == [wanted[d] for d in ("IF", "RQ", "EE")]
    model: Any = metrics[0].model  # type: ignore[attr-defined]
    assert model.calls == 1
    metrics[0](reference, reference.source)
    assert model.calls == 2
    with pytest.raises(BenchmarkError, match="no dimension 'XX'; it has IF, RQ, EE"):
        unknown(reference, result)
