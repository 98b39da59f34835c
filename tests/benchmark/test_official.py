"""The mode `official`: scores of files beside values that the published programs' own classes gave them."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from benchmark.core.item import RunStopped
from benchmark.core.media import geometry_of, read_frames
from benchmark.core.stored_frames import by_av
from benchmark.evaluation.results import Run, RunConfig
from benchmark.evaluation.runner import execute
from benchmark.features.aesthetic import AestheticPredictor
from benchmark.features.clip import Clip
from benchmark.features.viclip import ViClip
from benchmark.report.published_csv import write_published
from benchmark.suites import open_suite
from tests.parity import material

# `python -m tests.parity` on 2026-11-30: adobe-research/EditVerse eeca9ce with decord 0.6.0, transformers
# 5.24.0 and torch 2.15.0, on the file and networks of tests/parity/material.py.
PUBLISHED = {
    "clip_temporal": 0.9347470462322235,
    "dino_temporal": 0.946100503206253,
    "frame_text": -3.20023592764681,
    "pick": 3.071881272576072,
    "video_text": 18.94746720790863,
    "video_text_64": 24.480631947517395,
}
DECORD = {  # sha256 of the frames that decord 0.6.0 gives
    "wide": "8d5619c85a5048483971896f0605d354a9d30d059bf0e7e2e3f8924ff9034628",
    "upright": "e896f6e64a78eeca26c13ecb69c8b972bb14bf0ef72d5f5c63aea27dceb05a0f",
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return material.write_networks(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory, networks: dict[str, Path]) -> Path:
    def entry(kind: str, **args: Any) -> dict[str, Any]:
        return {"class_path": f"benchmark.{kind}", "init_args": args}

    models = {
        name: entry(f"features.clip.{kind}", path=str(networks[name]))
        for name, kind in (("clip", "Clip"), ("pick", "Clip"), ("dino", "Dino"))
    }
    for width in material.HEAD_WIDTHS:
        file, words = str(networks[f"viclip{width}"]), str(networks["tokenizer"])
        models[f"viclip{width}"] = entry("features.viclip.ViClip", path=file, tokenizer=words)
    text, temporal = "metrics.text.FrameAlignment", "metrics.temporal.TemporalConsistency"
    listed = [
        entry(temporal, model="clip", name="clip_temporal", label="CLIP"),
        entry(temporal, model="dino", name="dino_temporal", label="DINO"),
        entry(text, model="clip", name="frame_text", label="Frame"),
        entry(text, model="pick", name="pick", label="Pick", shrink=True),
        entry("metrics.text.VideoAlignment", model="viclip8"),
        entry("metrics.text.VideoAlignment", model="viclip64", name="video_text_64", label="Video 64"),
        entry("metrics.motion.MotionAlignment"),
    ]
    path = tmp_path_factory.mktemp("metrics") / "metrics.yaml"
    path.write_text(yaml.safe_dump({"models": models, "metrics": listed}))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, Path]:
    """(data with a list alone, results in the published layout: generate.mp4 and video1.mp4)."""
    data, results = tmp_path / "data", tmp_path / "results"
    data.mkdir()
    entry = {
        "<text>": "<video1> Make the ball red.",
        "<video1>": "videos/1.mp4",
        "direction": "horizontal",
        "target_prompt": material.PROMPT,
        "type": "change color",
    }
    (data / "test.json").write_text(json.dumps({"0": entry}))
    material.write_clip(results / "0" / "generate.mp4", 0, *material.SIZES["wide"])
    material.write_clip(results / "0" / "video1.mp4", 6, *material.SIZES["wide"])
    return data, results


def scored(out: Path, data: Path, results: Path, metrics: Path, mode: Any, **more: Any) -> Run:
    suite = more.pop("suite", "editversebench")
    named = {"ours": str(results)}
    config = RunConfig(suite, str(data), None, results=named, metrics=str(metrics), mode=mode)
    return execute(config, out, Console(quiet=True), gallery=0)


@pytest.mark.parametrize("clip", sorted(DECORD))
def test_frames_are_decords(tmp_path: Path, clip: str) -> None:
    path = material.write_clip(tmp_path / "v.mp4", list(material.SIZES).index(clip), *material.SIZES[clip])
    frames = np.stack(list(by_av(path)))
    assert hashlib.sha256(frames.tobytes()).hexdigest() == DECORD[clip]


def test_stored_frames_are_not_resampled(tmp_path: Path) -> None:
    """Of a file whose third frame is shown five times as long every frame is there once."""
    import av

    shades, times = (20, 60, 100, 140, 180, 220), (0, 1, 2, 7, 8, 9)
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv444p"
        for shade, time in zip(shades, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), shade, np.uint8), format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    frames = read_frames(tmp_path / "v.mkv", "official")
    assert np.abs(frames.mean((1, 2, 3)) - shades).max() < 2
    assert geometry_of(tmp_path / "v.mkv", 1.0, "official").frames == 6
    assert len(read_frames(tmp_path / "v.mkv")) == 10


def test_published_layout_scores_as_the_published_classes(
    folder: tuple[Path, Path], metrics: Path, tmp_path: Path
) -> None:
    data, results = folder
    run = scored(tmp_path / "out", data, results, metrics, "official")
    scores = run.outcomes[0].scores["ours"]
    for name, value in PUBLISHED.items():
        close = 1e-5 if "temporal" in name else 1e-4
        assert scores[name] == pytest.approx(value, abs=close), name
    # the source is the file beside the result: its motion is another one than the result's
    assert isinstance(scores["motion_alignment"], float)
    assert scores["motion_alignment"] < -0.1
    assert run.outcomes[0].sources["ours"] == results / "0" / "video1.mp4"
    summary = run.summary()
    assert "ours: the source of 1 results is the video1.mp4 beside them" in summary["remarks"]
    assert any("decord" in line for line in summary["unlike_published"])

    (path,) = write_published(run, tmp_path)
    rows = list(csv.reader(path.open()))
    assert rows[0] == [
        "id",
        "clip_temporal_consistency",
        "dino_temporal_consistency",
        "frame_text_alignment",
        "video_text_alignment",
        "pick_score_video_quality",
        "type",
    ]
    assert [row[0] for row in rows[1:]] == ["0", "Average"]
    assert rows[1][-1] == "change color"
    assert float(rows[1][4]) == float(rows[2][4]) == pytest.approx(PUBLISHED["video_text"], abs=1e-4)


def test_source_of_the_list_counts_in_corrected_where_it_is_there(
    folder: tuple[Path, Path], tmp_path: Path
) -> None:
    data, results = folder
    motion = tmp_path / "motion.yaml"
    motion.write_text("metrics: [{class_path: benchmark.metrics.motion.MotionAlignment}]")

    def score(mode: str, out: str) -> float:
        run = scored(tmp_path / out, data, results, motion, mode)
        found = run.outcomes[0].scores["ours"]["motion_alignment"]
        assert isinstance(found, float)
        return found

    beside = score("corrected", "missing")
    assert beside < -0.1
    (data / "videos").mkdir()
    shutil.copy(
        results / "0" / "generate.mp4", data / "videos" / "1.mp4"
    )  # a source that moves as the result
    assert score("corrected", "there") == 0.0
    assert score("official", "official") == pytest.approx(beside, abs=0.05)  # FFmpeg converts a little else


def test_gifs_are_read_as_pillow_reads_them(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "data: [{video_id: a, prompt: p, edit: [{prompt: q}, {prompt: r}]}]"
    )
    frames = [Image.fromarray(np.full((40, 60, 3), shade, np.uint8)) for shade in (10, 90, 170)]
    for place in ("a.gif", "out/a/0.gif"):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 300, 100])
    motion = tmp_path / "motion.yaml"
    motion.write_text("metrics: [{class_path: benchmark.metrics.motion.MotionAlignment}]")
    run = scored(tmp_path / "run", tmp_path, tmp_path / "out", motion, "official", suite="v2vbench")
    first, second = run.outcomes
    assert first.scores["ours"]["motion_alignment"] == 0.0
    assert first.geometries["ours"].frames == 3
    assert "is missing" in second.scores["ours"]["motion_alignment"].reason  # type: ignore[union-attr]


def test_backend_is_a_choice(networks: dict[str, Path]) -> None:
    """Official takes the class that the published code names; the other differs by a grey level."""
    frame = read_frames(material.write_clip(networks["clip"].parent / "v.mp4", 0, 1, 72, 128), "official")[0]

    def pixels(**options: Any) -> torch.Tensor:
        return next(Clip(str(networks["clip"]), **options).images([frame], "cpu"))

    named, pillow = pixels(mode="official"), pixels()
    assert torch.equal(named, pixels(backend="torchvision"))
    assert torch.equal(pillow, pixels(mode="official", backend="pil"))
    assert 0 < (named - pillow).abs().max() < 0.04
    assert "backend" not in Clip("x").identity  # scores of before keep their address


def test_heads_that_do_not_fit_are_refused(networks: dict[str, Path]) -> None:
    wrong = ViClip(str(networks["viclip64"]), str(networks["tokenizer"]), vision_heads=7)
    with pytest.raises(RunStopped, match="7 heads do not divide a width of 128"):
        _ = wrong.model


def test_second_aesthetic_predictor(networks: dict[str, Path], tmp_path: Path) -> None:
    """w x + b five times over on the embedding of unit length, from a checkpoint with the published names."""
    torch.manual_seed(1)
    tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPVisionConfig(**tiny, image_size=32, patch_size=8, projection_dim=24)
    tower = CLIPVisionModelWithProjection(config).eval()
    random = torch.Generator().manual_seed(3)
    state, layers, width = dict(tower.state_dict()), [], tower.config.projection_dim
    for place, out in zip((0, 2, 4, 6, 7), (1024, 128, 64, 16, 1), strict=True):
        weight, bias = (torch.randn(*s, generator=random) / width**0.5 for s in ((out, width), (out,)))
        state |= {f"layers.{place}.weight": weight, f"layers.{place}.bias": bias}
        layers.append((weight, bias))
        width = out
    tower.save_pretrained(tmp_path, state_dict=state)
    shutil.copy(networks["clip"] / "preprocessor_config.json", tmp_path)
    frame = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    network = AestheticPredictor(str(tmp_path))
    with torch.no_grad():
        x = tower(pixel_values=next(network.images([frame], "cpu"))).image_embeds
        x = x / x.norm()
        for weight, bias in layers:
            x = x @ weight.T + bias
    assert float(network.grades([frame])[0]) == pytest.approx(float(x), rel=1e-4)
    tower.save_pretrained(tmp_path / "bare")
    with pytest.raises(RunStopped, match="no aesthetic predictor of the second kind: lacks layers"):
        _ = AestheticPredictor(str(tmp_path / "bare")).model


def test_imgedit_is_summed_up_over_its_kinds(tmp_path: Path) -> None:
    kinds = {"1": "add", "2": "add", "3": "style", "4": "remove"}
    entries = {key: {"id": "a.png", "prompt": "x", "edit_type": kind} for key, kind in kinds.items()}
    (tmp_path / "basic_edit.json").write_text(json.dumps(entries))
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    suite: Any = open_suite("imgedit", tmp_path)
    found = suite.aggregate({"1": {"j": 5.0}, "2": {"j": 4.0}, "3": {"j": 1.0}, "4": {"j": 2.0}})
    assert found[0] == ("j, mean of 3 kinds (Overall)", 2.5, 4)  # the mean over items is 3
    assert found[1:] == [("j, add", 4.5, 2), ("j, remove", 2.0, 1), ("j, style", 1.0, 1)]
    missing = suite.aggregate({"1": {"j": 5.0}, "2": {"j": None}, "3": {"j": None}, "4": {"j": 2.0}})
    assert missing[0].value is None
    assert ("j, add", 5.0, 1) in missing
