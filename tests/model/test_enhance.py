"""Instructions rewritten by a language model behind a real endpoint on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editverse.__main__ import main
from editverse.enhance import make_enhancer
from model import Editor
from model.cli import main as model_main
from model.inference import enhance
from shards.media import write_image, write_video
from tests.benchmark.stub import Reply, Stub, said
from tests.model.test_bases import rewrite, tiny_pipeline

WORDS = "Put a red hat, as in image0, on the man; the street stays as it is."


@pytest.fixture
def stub() -> Iterator[Stub]:
    served = Stub()
    yield served
    served.server.shutdown()


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the commands set for their process is undone."""
    monkeypatch.setattr(enhance, "_makers", [])
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bernini's layout with tiny parts."""
    where = tmp_path_factory.mktemp("bernini")
    tiny_pipeline().save_pretrained(where)
    (where / "model_index.json").unlink()
    (where / "config.json").write_text("{}")
    rewrite(where / "config.json", model_type="bernini_renderer", skip_transformer_2=True)
    return where


def asked(request: dict[str, Any]) -> tuple[int, str]:
    """The number of pictures in a request, and its question."""
    content = request["messages"][0]["content"]
    return sum(part["type"] == "image_url" for part in content), content[-1]["text"]


def rng_clip(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_the_model_sees_the_media_and_its_words_are_carried_out(stub: Stub, folder: Path) -> None:
    answers = ["<video1> Hats!", "{}", json.dumps({"instruction": WORDS})]

    def reply(n: int, request: dict[str, Any]) -> Reply:
        return said(answers[n])

    stub.reply = reply
    editor, media = (
        Editor.from_pretrained(folder),
        {"video1": rng_clip(9, 32, 48), "image1": rng_clip(32, 32)},
    )
    options: dict[str, Any] = {"steps": 1, "size": "model", "frames": 5}
    text = "<video1> Put the hat of <image1> on the man. <video2>"
    result = editor(text, **media, **options, enhance=make_enhancer(stub.url, "m"))
    assert result.rewritten == WORDS
    pictures, question = asked(stub.requests[0])
    assert pictures == 4
    assert "video editing with reference. You see, in this order: 3 frames of a video; a picture" in question
    assert "The instruction is: Put the hat of the reference image on the man.\n" in question
    assert len(stub.requests) == 3
    assert "Your last answer" in asked(stub.requests[2])[1]
    same = editor(f"<video1> {WORDS} <image1> <video2>", **media, **options)
    assert same.rewritten is None
    assert np.array_equal(result.frames, same.frames)
    other = editor(text, **media, **options)
    assert not np.array_equal(result.frames, other.frames)


def test_the_command_prints_and_saves_what_it_was_told(
    stub: Stub, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.reply = lambda n, request: said(json.dumps({"instruction": WORDS}))
    write_video(tmp_path / "in.mp4", rng_clip(5, 32, 48), 16)
    write_image(tmp_path / "hat.png", rng_clip(32, 32))
    words = ["edit", "--checkpoint", str(folder), "--out", str(tmp_path / "out.mp4"), "--device", "cpu"]
    words += ["--text", "<video1> A hat. <image1> <video2>", "--image1", str(tmp_path / "hat.png")]
    words += ["--video1", str(tmp_path / "in.mp4"), "--steps", "1", "--enhance", stub.url]
    assert main([*words]) == 2
    assert "--enhance_model" in capsys.readouterr().err
    assert model_main([*words, "--enhance_model", "m"]) == 0
    assert f"{tmp_path / 'out.json'}: {WORDS}" in capsys.readouterr().out
    saved = json.loads((tmp_path / "out.json").read_text())
    assert saved == {"text": "<video1> A hat. <image1> <video2>", "rewritten": WORDS}
    assert [request["model"] for request in stub.requests] == ["m"]


def test_what_cannot_be_asked_is_one_line_before_anything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["edit", "--checkpoint", "nano", "--text", "A fox. <image1>", "--out", str(tmp_path / "a.png")]
    for options, reason in (
        (["--enhance", "http://127.0.0.1:1/v1"], "is `editverse edit`"),
        (["--enhance_model", "m"], "needs --enhance"),
    ):
        assert model_main([*words, *options]) == 2
        assert reason in capsys.readouterr().err
    assert main([*words, "--enhance", str(tmp_path), "--enhance_model", "m"]) == 2
    assert "is no URL" in capsys.readouterr().err
    assert main([*words, "--enhance", str(tmp_path / "none")]) == 2
    assert "Qwen2-VL" in capsys.readouterr().err
