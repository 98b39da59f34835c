"""Language models as writers and judges: what they answer well, and everything that they answer badly."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from curation.annotators.vace import WanVace
from curation.engine.run import run
from curation.text.vlm_captions import Writer
from curation.text.vlm_filter import CRITERIA, ROLE, Judge
from curation.vlm import hub
from curation.vlm.client import expected, sampled
from curation.vlm.endpoint import Endpoint
from curation.vlm.errors import AssetError
from curation.vlm.interface import AnnotatorError, NoAnswerError, Rating
from curation.vlm.qwen_vl import QwenVl, scaled
from tests.curation.reference.answers import Answers


def asked(url: str, **settings: Any) -> Endpoint:
    return Endpoint(url, "m", **{"timeout": 1.0, "retries": 0, **settings})


def test_every_generation_of_qwen_vl_answers_and_grades(tiny: Callable[[str], str], clip: np.ndarray) -> None:
    """Its own patch size, a role, videos with their times; a text without media after one with."""
    frames, quick, slow = clip[:, :32, :64], np.arange(9) / 25, np.arange(9) / 2.5
    for name, family in (("qwen2_vl", "qwen2-vl"), ("qwen2_5_vl", "qwen2.5-vl"), ("qwen3_vl", "qwen3-vl")):
        model = QwenVl(tiny(name), tokens=6, pixels=2 * 4 * 28 * 28)
        assert model.describe().model == family
        assert model.ask([clip[0], clip], "What is it?")
        alone = model.rate([], "Grade it.")
        one = model.rate([clip[0], clip[8]], "Grade it.")
        assert 0 <= one.value <= 10
        assert 0 < (one.entropy or 0) <= np.log(11) + 1e-6
        assert one == model.rate([clip[0], clip[8]], "Grade it.")
        assert alone == model.rate([], "Grade it.")
        told = model.rate([frames, frames], "Grade it.", times=[quick, slow])
        assert told == model.rate([frames, frames], "Grade it.", times=[quick, slow])
        assert told != model.rate(
            [frames, frames], "Grade it.", times=[quick, slow], system="You are strict."
        )
        later = model.rate([frames, frames], "Grade it.", times=[slow, slow])
        assert (told == later) == (name == "qwen2_vl"), "from 2.5 on the model is told the times"


def test_a_checkpoint_that_is_another_s_or_not_whole_is_named(
    tiny: Callable[[str], str], tmp_path: Path
) -> None:
    """Each is one line that names the folder: before any work, or at the latest when weights are loaded."""
    older, newer = Path(tiny("qwen2_vl")), Path(tiny("qwen2_5_vl"))

    def copy(name: str, source: Path = older, **changes: Any) -> Path:
        folder = shutil.copytree(source, tmp_path / name)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        return folder

    def refused(folder: Path, said: str) -> None:
        with pytest.raises(AssetError, match=said) as error:
            QwenVl(str(folder)).describe()
        assert str(folder) in str(error.value)
        assert "\n" not in str(error.value)

    refused(copy("text", model_type="qwen2"), "holds a qwen2; Qwen2-VL, Qwen2.5-VL or Qwen3-VL is wanted")
    refused(copy("nameless", model_type=None), "holds a None|names no model")
    half = copy("half")
    weights = (half / "model.safetensors").read_bytes()
    (half / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    refused(half, "incomplete: model.safetensors is cut off")
    (half / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0")
    refused(half, "incomplete: model.safetensors is cut off")
    (half / "model.safetensors").unlink()
    refused(half, "incomplete: it holds no weights")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (half / names["a"]).write_bytes(weights)
    (half / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    refused(half, "1 of 2 files of weights are missing, model-00002-of-00002.safetensors first")
    mixed = copy("mixed")
    (mixed / "model.safetensors").write_bytes((newer / "model.safetensors").read_bytes())
    with pytest.raises(AssetError, match=r"mixed: its weights are not those of the qwen2-vl that its config"):
        QwenVl(str(mixed)).ask([], "Hello")
    bare = copy("bare")
    for file in (*bare.glob("*processor*"), *bare.glob("tokenizer*")):
        file.unlink()
    with pytest.raises(AssetError, match="bare: no processor of qwen2-vl"):
        QwenVl(str(bare)).ask([], "Hello")


def test_parts_of_a_pipeline_that_are_missing_are_named(tmp_path: Path) -> None:
    """A folder of diffusers: each part has one, and its own index and weights."""
    (tmp_path / "vae").mkdir()
    parts = {"_class_name": "WanVACEPipeline", "vae": ["diffusers", "AutoencoderKLWan"], "x": [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps({**parts, "transformer": ["diffusers", "Wan"]}))
    generator = WanVace(str(tmp_path))
    with pytest.raises(AssetError, match="Wan VACE is incomplete: transformer is missing"):
        generator.describe()
    (tmp_path / "model_index.json").write_text(json.dumps(parts))
    index = tmp_path / "vae" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "a.safetensors"}}))
    with pytest.raises(AssetError, match="1 of 1 files of weights are missing"):
        generator.describe()
    save_file({"w": torch.zeros(3)}, tmp_path / "vae" / "a.safetensors")
    assert generator.describe().model == "wan-vace"
    index.write_text("{")
    hub.folder_of.cache_clear()
    with pytest.raises(AssetError, match="a JSON file of it is damaged"):
        generator.describe()


def test_frames_are_scaled_to_whole_patches() -> None:
    """480x832 within 512 tokens as authors scale it; a sliver is enlarged, what fits is left as it is."""
    frames = np.zeros((2, 480, 832, 3), np.uint8)
    assert scaled(frames, 28, 512 * 28 * 28).shape == (2, 476, 840, 3)
    assert scaled(frames, 32, 400 * 32 * 32).shape == (2, 480, 832, 3)
    assert scaled(frames, 28, 64 * 28 * 28).shape == (2, 168, 280, 3)
    assert scaled(frames[:, :5, :5], 28, 9 * 28 * 28).shape == (2, 56, 56, 3)


def test_ten_is_told_from_one() -> None:
    weights = np.zeros(11)
    weights[10] = 0.4
    assert expected(weights).value == 10
    weights[1] = 0.4
    assert expected(weights).value == pytest.approx(5.5)
    with pytest.raises(AnnotatorError):
        expected(np.zeros(11))


def test_a_model_that_talks_nonsense_is_given_up(tiny: Callable[[str], str], clip: np.ndarray) -> None:
    writer = Writer(QwenVl(tiny("qwen2_vl"), tokens=6), attempts=2)
    with pytest.raises(AnnotatorError, match="qwen2-vl: no usable answer in 2 attempts"):
        writer.names(clip)


@pytest.mark.parametrize("mode", ["", "fenced", "draft"])
def test_answers_are_taken_from_json(endpoint: tuple[str, Any], clip: np.ndarray, mode: str) -> None:
    url, server = endpoint
    server.mode = mode
    writer, mask = Writer(asked(url), frames=3), clip[..., 0] > 200
    assert writer.names(clip) == ["person", "red ball"]
    words = writer.removal(clip, mask, "ball")
    assert words.remove == "The remove in words."
    assert 'found as "ball"' in server.asked[-1]["messages"][-1]["content"][-1]["text"]
    assert len(server.asked[-1]["messages"][-1]["content"]) == 3 + 3 + 1
    assert writer.caption(clip) == "The caption in words."


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("prose", "held no JSON object"),
        ("wrong", "Extra inputs are not permitted|Field required"),
    ],
)
def test_a_wrong_answer_is_asked_again_and_told_why(
    endpoint: tuple[str, Any], clip: np.ndarray, mode: str, said: str
) -> None:
    url, server = endpoint
    server.mode = mode
    with pytest.raises(AnnotatorError, match=said):
        Writer(asked(url), attempts=3).caption(clip)
    prompts = [r["messages"][-1]["content"][-1]["text"] for r in server.asked]
    assert len(prompts) == 3
    assert "Your last answer" not in prompts[0]
    assert "Your last answer" in prompts[1]


@pytest.mark.parametrize("mode", ["refusal", "nothing", "500", "hang"])
def test_refusals_and_faults_quarantine(endpoint: tuple[str, Any], clip: np.ndarray, mode: str) -> None:
    url, server = endpoint
    server.mode = mode
    with pytest.raises(AnnotatorError, match=r"^m: "):
        Writer(asked(url), attempts=2).caption(clip)
    assert len(server.asked) == (2 if mode in ("refusal", "nothing") else 1), (
        "what it says is asked for again"
    )


@pytest.mark.parametrize(
    ("objects", "names"),
    [
        ('["A Person.", "the red ball", "red ball", "person"]', ["person", "red ball"]),
        ("[]", []),
        ('["dog. cat"]', ["dog cat"]),  # a full stop divides what Grounding DINO reads
        ('["\u72d7"]', None),
        ('["..."]', None),
        ('["' + "very " * 9 + 'long"]', None),
        (json.dumps([f"thing {n}" for n in range(13)]), None),
        ('"person"', None),
        ("[1]", None),
    ],
)
def test_names_are_such_as_a_detector_reads(
    endpoint: tuple[str, Any], clip: np.ndarray, objects: str, names: list[str] | None
) -> None:
    url, server = endpoint
    server.mode = f"names {objects}"
    if names is None:
        with pytest.raises(
            AnnotatorError, match="no usable answer in 2 attempts; the last was wrong in 'objects"
        ):
            Writer(asked(url), attempts=2).names(clip)
    else:
        assert Writer(asked(url), attempts=2).names(clip) == names


def test_an_endpoint_that_is_not_there_stops_the_run(endpoint: tuple[str, Any], clip: np.ndarray) -> None:
    url, server = endpoint
    for mode, said in (("401", "refuses the key in OPENAI_API_KEY"), ("404", "no m there")):
        server.mode = mode
        with pytest.raises(AssetError, match=said):
            asked(url).ask([clip[0]], "Hello")
    with pytest.raises(AssetError, match="start it, or correct url"):
        asked("http://127.0.0.1:9/v1").ask([clip[0]], "Hello")


def test_grades_by_probability_or_by_word(endpoint: tuple[str, Any], clip: np.ndarray) -> None:
    url, server = endpoint
    rating = asked(url).rate([clip[0]], "Grade it.")
    assert rating.value == pytest.approx(7.5)
    assert rating.entropy == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    server.mode = "words"
    assert asked(url).rate([clip[0]], "Grade it.") == Rating(8.0, None, "Grade: 8/10")
    server.mode = "prose"
    with pytest.raises(AnnotatorError, match="holds no grade"):
        asked(url).rate([clip[0]], "Grade it.")


def test_a_judge_behind_an_endpoint_sees_all_frames_with_their_times(
    endpoint: tuple[str, Any], clip: np.ndarray
) -> None:
    """Role, labels, every frame of every video whatever the endpoint's own limit; and its grades."""
    url, server = endpoint
    video = np.concatenate([clip, clip, clip])
    judge = Judge(asked(url, frames=2), {"sharpness": 8.0}, run=3)
    grades = judge.grades(video, video[::-1].copy(), "Remove the ball.", 10.0, video[..., 0] > 200)
    assert [name for name in grades if not name.endswith("_entropy")] == list(CRITERIA)
    assert judge.reason(grades) == "judged low on sharpness"
    assert len(server.asked) == len(CRITERIA)
    shown = judge.shown(len(video), 10.0)
    for request, criterion in zip(server.asked, CRITERIA.values(), strict=True):
        role, user = request["messages"]
        assert role == {"role": "system", "content": ROLE}
        texts = [part["text"] for part in user["content"] if part["type"] == "text"]
        pictures = [part for part in user["content"] if part["type"] == "image_url"]
        assert len(texts) == len(pictures) + 1
        assert "Remove the ball." in texts[-1]
        assert texts[0] == "Video 1, 0.00 s:"
        if criterion.views == "whole":
            assert len(pictures) == 2 * len(shown.whole)
            assert texts[-2] == "Video 2, 2.60 s:"


@pytest.mark.parametrize(("mode", "said"), [("prose", "'nice' holds no grade"), ("nothing", "'' holds no")])
def test_a_judge_that_gives_no_grade_is_asked_thrice(
    endpoint: tuple[str, Any], clip: np.ndarray, mode: str, said: str
) -> None:
    """Then it is a reason, no grade of 0 and no end of the run."""
    url, server = endpoint
    server.mode = mode
    with pytest.raises(AnnotatorError, match=f"^m: {said}.*3 attempts"):
        Judge(asked(url)).grades(clip, clip, "Remove the ball.", 10.0)
    prompts = [request["messages"][-1]["content"][-1]["text"] for request in server.asked]
    assert len(prompts) == 3
    assert ["held no grade" in prompt for prompt in prompts] == [False, True, True]


@pytest.mark.parametrize(
    ("told", "grade"),
    [("8", 8.0), ("8.5", 8.5), ("Grade: 10/10.", 10.0), ("10.5", None), ("11", None), ("-3", None)],
)
def test_a_grade_in_words_is_a_number_from_0_to_10(
    endpoint: tuple[str, Any], clip: np.ndarray, told: str, grade: float | None
) -> None:
    url, server = endpoint
    server.mode = f"says {told}"
    if grade is None:
        with pytest.raises(NoAnswerError, match="holds no grade from 0 to 10"):
            asked(url).rate([clip[0]], "Grade it.")
    else:
        assert asked(url).rate([clip[0]], "Grade it.") == Rating(grade, None, told)


def test_grades_that_are_hardly_likely_are_none() -> None:
    """A model that would go on in prose gives digits what is left; that is no grade."""
    with pytest.raises(NoAnswerError, match=r"^Qwen-VL: 'I' is no grade: .* probability 0\.0055"):
        expected(np.full(11, 0.0005), "Qwen-VL: 'I'")
    assert expected(np.full(11, 0.002)).value == pytest.approx(5)


def test_frames_are_sampled_evenly() -> None:
    assert sampled(9, 3).tolist() == [0, 4, 8]
    assert sampled(2, 5).tolist() == [0, 1]


# ---- in a run ---------------------------------------------------------------------------------------------


def test_what_a_backend_cannot_do_is_quarantined_and_tried_again(
    small: Callable[..., dict[str, Any]],
    endpoint: tuple[str, Any],
    little_clips: Path,
    tmp_path: Path,
    cli: Callable[..., Any],
) -> None:
    _, server = endpoint
    config = small("object_removal", tmp_path)
    path = tmp_path / "removal.yaml"
    path.write_text(yaml.safe_dump(config))
    command = ["run", "object_removal", "--clips", little_clips, "--config", path, "--workers", 0]
    command += ["--workspace", tmp_path / "workspace", "--out", tmp_path / "out"]

    def again() -> Any:
        return run("object_removal", little_clips, tmp_path / "out", tmp_path / "workspace", path, 0)

    server.mode = "names []"
    empty = run("object_removal", little_clips, tmp_path / "none", tmp_path / "empty", path, 0)
    assert empty.rejected == {"no object named": 1}
    assert not empty.quarantined
    server.mode = "prose"
    first = cli(*command)
    assert first.returncode == 2
    assert "no pair was accepted" in first.stderr
    assert "no usable answer in 3 attempts" in (tmp_path / "out" / "quarantine.jsonl").read_text()
    server.mode = ""
    good = path.read_text()
    config["init_args"]["inpainter"]["init_args"]["program"]["environment"] = {"FAIL": "crash"}
    path.write_text(yaml.safe_dump(config))
    broken = run("object_removal", little_clips, tmp_path / "out2", tmp_path / "workspace", path, 0)
    assert len(broken.quarantined) == broken.candidates == 2
    assert all("DiffuEraser: RuntimeError: CUDA error" in reason for reason in broken.quarantined)
    path.write_text(good)
    done = again()
    assert not done.quarantined
    assert done.samples == 8
    assert done.stages["segment"].computed == 0  # kept from before
    assert done.stages["inpaint"].computed == 2


def test_an_endpoint_that_is_down_for_a_while_is_waited_for(clip: np.ndarray) -> None:
    """Its server is stopped after an answer and started again; one that never answered is told at once."""
    first = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    port = first.server_address[1]
    model = asked(f"http://127.0.0.1:{port}/v1", patience=30.0)
    threading.Thread(target=first.serve_forever, daemon=True).start()
    before = model.rate([clip[0]], "Grade it.")
    first.shutdown()
    first.server_close()
    again: list[ThreadingHTTPServer] = []

    def restart() -> None:
        again.append(ThreadingHTTPServer(("127.0.0.1", port), Answers))
        again[0].serve_forever()

    timer = threading.Timer(1.5, restart)
    timer.start()
    begin = time.monotonic()
    assert model.rate([clip[0]], "Grade it.") == before
    assert time.monotonic() - begin > 1.4
    again[0].shutdown()
    again[0].server_close()

    impatient = asked(f"http://127.0.0.1:{port}/v1", patience=30.0)
    begin = time.monotonic()
    with pytest.raises(AssetError, match="start it, or correct url"):
        impatient.rate([clip[0]], "Grade it.")
    assert time.monotonic() - begin < 10
