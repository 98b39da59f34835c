"""Metrics of frozen networks against their definitions, on tiny random networks of the published layouts.

What is expected is written out here from the definitions: pixels by PIL, cosines by numpy, forward passes by
transformers' own end-to-end call or, for ViCLIP, by hand from the tensors.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import (
    BitImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionModel,
    Dinov2Model,
)

from benchmark.core.item import BenchmarkError, Geometry, Loaded, Reference, Unscored
from benchmark.features.clip import Clip, Dino
from benchmark.features.frames import crops, sampled
from benchmark.features.viclip import MEAN, STD, ViClip
from benchmark.metrics.aesthetic import Aesthetic
from benchmark.metrics.direction import VideoDirection
from benchmark.metrics.temporal import TemporalConsistency
from benchmark.metrics.text import FrameAlignment, VideoAlignment
from tests.benchmark import networks

PROMPT = "A red ball rolls over the sand, slowly, while a dog looks on from the shade of an old tree near."
CLOSE = 1e-5


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    return networks.clip(tmp_path_factory.mktemp("clip"), tokenizer)


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def viclip_state() -> dict[str, torch.Tensor]:
    return networks.viclip_state()


@pytest.fixture(scope="module")
def viclip(
    viclip_state: dict[str, torch.Tensor], tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> ViClip:
    path = tmp_path_factory.mktemp("viclip") / "ViClip.pth"
    torch.save({"model": viclip_state}, path)
    return ViClip(str(path), str(tokenizer))


def clip_of(frames: int = 11, height: int = 40, width: int = 72) -> np.ndarray:
    """Smooth colours that move."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    waves = [np.sin(x / (5 + c) + t * (0.3 + 0.2 * c)) * np.cos(y / (4 + 2 * c) - t * 0.4) for c in range(3)]
    return np.uint8(127.5 + 120 * np.stack(waves, -1))


def reference(video: np.ndarray, prompt: str | None = PROMPT) -> Reference:
    loaded = Loaded(video, video, None, 10.0, {})
    prompts = {} if prompt is None else {"target": prompt}
    return Reference(loaded, Geometry(*video.shape[:3], 10.0), prompts)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def square(frame: np.ndarray, short: int, crop: int) -> np.ndarray:
    """The middle square, float in 0 to 1: PIL's bicubic resizing of the shorter side, then the crop."""
    height, width = frame.shape[:2]
    scaled = (short, short * height // width) if width < height else (short * width // height, short)
    resized = np.asarray(Image.fromarray(frame).resize(scaled, Image.Resampling.BICUBIC))
    top, left = ((side - crop) // 2 for side in resized.shape[:2])
    return resized[top : top + crop, left : left + crop] / 255.0


def pixels(
    frames: np.ndarray, short: int, crop: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    made = np.stack([(square(f, short, crop) - mean) / std for f in frames])
    return torch.tensor(made.transpose(0, 3, 1, 2), dtype=torch.float32)


@pytest.mark.parametrize("size", [(40, 72), (66, 40), (32, 32)])
def test_clip_temporal_consistency(clip_folder: Path, size: tuple[int, int]) -> None:
    video = clip_of(9, *size)
    model = CLIPVisionModel.from_pretrained(clip_folder).eval()
    with torch.no_grad():
        pooled = [
            model(pixel_values=p[None]).pooler_output[0].numpy() for p in pixels(video, 32, 32, MEAN, STD)
        ]
    wanted = np.mean([max(0.0, cosine(a, b)) for a, b in itertools.pairwise(pooled)])
    metric = TemporalConsistency(Clip(str(clip_folder)), "clip_temporal", "CLIP", "official")
    assert metric(reference(video), video) == pytest.approx(wanted, abs=CLOSE)
    assert 0.01 < wanted < 0.999


def test_dino_temporal_consistency(dino_folder: Path) -> None:
    video = clip_of()
    model = Dinov2Model.from_pretrained(dino_folder).eval()
    shown = pixels(video, 32, 28, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    processor = BitImageProcessorPil.from_pretrained(dino_folder)
    assert tuple(processor.image_mean) != (
        0.485,
        0.456,
        0.406,
    )  # the class's own; the checkpoint brings its own
    mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    shown = pixels(video, 32, 28, mean, std)
    with torch.no_grad():
        pooled = [model(pixel_values=p[None]).pooler_output[0].numpy() for p in shown]
    wanted = np.mean([max(0.0, cosine(a, b)) for a, b in itertools.pairwise(pooled)])
    metric = TemporalConsistency(Dino(str(dino_folder)), "dino_temporal", "DINO", "official")
    assert metric(reference(video), video) == pytest.approx(wanted, abs=CLOSE)


@pytest.mark.parametrize("shrink", [False, True])
def test_frame_text_and_pick(clip_folder: Path, shrink: bool) -> None:
    """The network's own logits are the scaled cosines; PickScore's frames are shrunk first."""
    video = clip_of(5, 500, 1001) if shrink else clip_of(5)
    model = CLIPModel.from_pretrained(clip_folder).eval()
    tokens = CLIPTokenizer.from_pretrained(clip_folder)(
        PROMPT, truncation=True, max_length=77, return_tensors="pt"
    )
    assert tokens["input_ids"].shape == (1, 77)  # the prompt is longer than that
    shown = video
    if shrink:
        size = (int(672 / 1001 * 1001), int(672 / 1001 * 500))
        shown = np.stack([np.asarray(Image.fromarray(f).resize(size)) for f in video])
    with torch.no_grad():
        logits = model(**tokens, pixel_values=pixels(shown, 32, 32, MEAN, STD)).logits_per_image
    metric = FrameAlignment(Clip(str(clip_folder)), "pick", "Pick", "official", shrink=shrink)
    assert metric(reference(video), video) == pytest.approx(float(logits.mean()), abs=1e-4)


def layer_norm(x: torch.Tensor, state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def through(x: torch.Tensor, state: dict[str, torch.Tensor], tower: str, causal: bool) -> torch.Tensor:
    """Two pre-norm blocks over [L, width], heads of 64, quick GELU."""
    for n in range(2):
        at = f"{tower}.transformer.resblocks.{n}"
        h = layer_norm(x, state, f"{at}.ln_1") @ state[f"{at}.attn.in_proj_weight"].T
        q, k, v = (
            part.unflatten(-1, (-1, 64)).transpose(0, 1)
            for part in (h + state[f"{at}.attn.in_proj_bias"]).chunk(3, -1)
        )
        scores = q @ k.transpose(1, 2) / 8
        if causal:
            scores = scores.masked_fill(torch.ones(len(x), len(x)).triu(1).bool(), -torch.inf)
        mixed = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        x = x + F.linear(mixed, state[f"{at}.attn.out_proj.weight"], state[f"{at}.attn.out_proj.bias"])
        h = F.linear(
            layer_norm(x, state, f"{at}.ln_2"), state[f"{at}.mlp.c_fc.weight"], state[f"{at}.mlp.c_fc.bias"]
        )
        h = h * torch.sigmoid(1.702 * h)
        x = x + F.linear(h, state[f"{at}.mlp.c_proj.weight"], state[f"{at}.mlp.c_proj.bias"])
    return x


def test_video_text(viclip: ViClip, viclip_state: dict[str, torch.Tensor], tokenizer: Path) -> None:
    """Eight frames at int(i n / 8), patches of all of them in one sequence; 32 tokens of text; times 100."""
    video, state = clip_of(19), viclip_state
    chosen = video[[int(i * 19 / 8) for i in range(8)]]
    tokens = [state["vision_encoder.class_embedding"] + state["vision_encoder.positional_embedding"][0]]
    for time, frame in enumerate(pixels(chosen, 32, 32, MEAN, STD)):
        patches = frame.unfold(1, 8, 8).unfold(2, 8, 8).permute(1, 2, 0, 3, 4).reshape(16, -1)
        embedded = patches @ state["vision_encoder.conv1.weight"].flatten(1).T
        place = state["vision_encoder.positional_embedding"][1:]
        tokens += list(embedded + place + state["vision_encoder.temporal_positional_embedding"][0, time])
    x = through(
        layer_norm(torch.stack(tokens), state, "vision_encoder.ln_pre"), state, "vision_encoder", False
    )
    seen = layer_norm(x[0], state, "vision_encoder.ln_post") @ state["vision_encoder.proj"]
    ids = CLIPTokenizer.from_pretrained(tokenizer)(PROMPT)["input_ids"]
    ids = torch.tensor([*ids[:31], 513])
    words = state["text_encoder.token_embedding.weight"][ids] + state["text_encoder.positional_embedding"]
    x = layer_norm(through(words, state, "text_encoder", True), state, "text_encoder.ln_final")
    read = x[31] @ state["text_encoder.text_projection"]
    wanted = 100 * cosine(seen.numpy(), read.numpy())
    metric = VideoAlignment(viclip, mode="official")
    assert metric(reference(video), video) == pytest.approx(wanted, abs=1e-4)
    assert abs(wanted) > 0.1
    # V2VBench: every third frame, which must be eight, and the bare cosine
    strided = VideoAlignment(viclip, mode="official", scale=1, stride=3)
    whole = clip_of(24)
    same = np.repeat(whole[::3], 3, axis=0)[:24]
    eighths = VideoAlignment(viclip, mode="official")(reference(same), same)
    assert isinstance(eighths, float)
    assert strided(reference(whole), whole) == pytest.approx(eighths / 100, abs=1e-6)
    assert isinstance(strided(reference(whole), whole[:19]), Unscored)
    short = "A dog."  # zeros follow the end, and nobody looks at them
    ids = torch.tensor(CLIPTokenizer.from_pretrained(tokenizer)(short)["input_ids"])
    places = state["text_encoder.positional_embedding"][: len(ids)]
    words = state["text_encoder.token_embedding.weight"][ids] + places
    x = layer_norm(through(words, state, "text_encoder", True), state, "text_encoder.ln_final")
    wanted = 100 * cosine(seen.numpy(), (x[-1] @ state["text_encoder.text_projection"]).numpy())
    assert metric(reference(video, short), video) == pytest.approx(wanted, abs=1e-4)


def test_direction(viclip: ViClip) -> None:
    """Cosine of differences of unit embeddings; nothing to compare is a reason."""
    before, after = clip_of(19), clip_of(19)[:, ::-1].copy()
    told = {"source": "A ball.", "target": "A box."}
    of = Reference(Loaded(before, before, None, 10.0, {}), Geometry(*before.shape[:3], 10.0), told)
    frames = [int((i + 0.5) * 19 / 8) for i in range(8)]
    wanted = []
    for start in (0, 32):  # two squares of 40 cover 72
        seen = [
            viclip.video([v[n][:, start : start + 40] for n in frames]).double().numpy()
            for v in (before, after)
        ]
        read = [viclip.text(t).double().numpy() for t in told.values()]
        wanted.append(cosine(seen[1] - seen[0], read[1] - read[0]))
    assert VideoDirection(viclip)(of, after) == pytest.approx(np.mean(wanted), abs=CLOSE)
    assert isinstance(VideoDirection(viclip)(of, before), Unscored)
    assert isinstance(VideoDirection(viclip)(reference(before), after), Unscored)


def test_aesthetic(clip_folder: Path, tmp_path: Path) -> None:
    video = clip_of(3)
    torch.manual_seed(3)
    head = {"weight": torch.randn(1, 24), "bias": torch.tensor([5.0])}
    torch.save(head, tmp_path / "head.pth")
    model = CLIPModel.from_pretrained(clip_folder).eval()
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=pixels(video, 32, 32, MEAN, STD)).pooler_output
        found = model.visual_projection(pooled).numpy()
    scores = [float(f @ head["weight"][0].numpy() / np.sqrt(f @ f) + 5) for f in found]
    metric = Aesthetic(Clip(str(clip_folder)), str(tmp_path / "head.pth"), "official")
    assert metric(reference(video), video) == pytest.approx(np.mean(scores), abs=CLOSE)
    torch.save({"weight": torch.randn(1, 8), "bias": torch.zeros(1)}, tmp_path / "small.pth")
    with pytest.raises(BenchmarkError, match="takes 8 numbers, CLIP gives 24"):
        Aesthetic(Clip(str(clip_folder)), str(tmp_path / "small.pth"))(reference(video), video)
    torch.save({"layer": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(BenchmarkError, match="should hold weight and bias"):
        Aesthetic(Clip(str(clip_folder)), str(tmp_path / "other.pth"))(reference(video), video)


def test_corrected_sees_the_edges_and_the_end(clip_folder: Path, viclip: ViClip) -> None:
    """What changes at the sides of a wide frame, or in the last frames, alone moves no official score."""
    clip = Clip(str(clip_folder))
    still = np.repeat(clip_of(1, 32, 96), 17, 0)
    sides = still.copy()
    sides[8:, :, :24] = 255 - sides[8:, :, :24]
    end = still.copy()
    end[16:] = 255 - end[16:]
    for mode, same in (("official", True), ("corrected", False)):
        temporal = TemporalConsistency(clip, "clip_temporal", "CLIP", mode)  # type: ignore[arg-type]
        scores = [temporal(reference(v), v) for v in (still, sides)]
        assert (scores[0] == pytest.approx(scores[1], abs=1e-7)) is same
        frames = FrameAlignment(clip, "frame_text", "Frame", mode)  # type: ignore[arg-type]
        scores = [frames(reference(v), v) for v in (still, sides)]
        assert (scores[0] == pytest.approx(scores[1], abs=1e-7)) is same
    official = VideoAlignment(viclip, mode="official")
    assert official(reference(still), still) == official(reference(end), end)
    assert sampled(16, 8, "official")[-1] == 14
    assert sampled(16, 8, "corrected") == [1, 3, 5, 7, 9, 11, 13, 15]


def test_crops_cover_a_frame() -> None:
    for size in ((32, 96), (96, 32), (50, 73), (40, 40)):
        frame = np.arange(size[0] * size[1]).reshape(size)[..., None].repeat(3, -1)
        seen = {int(v) for crop in crops(frame, "corrected") for v in crop[..., 0].flat}
        assert seen == set(range(frame[..., 0].size))
        assert all(crop.shape[0] == crop.shape[1] for crop in crops(frame, "corrected"))


def test_what_cannot_be_scored_has_a_reason(clip_folder: Path, viclip: ViClip) -> None:
    video = clip_of(1)
    clip = Clip(str(clip_folder))
    assert TemporalConsistency(clip, "t", "T")(reference(video), video) == Unscored(
        "one frame has no neighbour"
    )
    for metric in (FrameAlignment(clip, "f", "F"), VideoAlignment(viclip)):
        score = metric(reference(video, None), video)
        assert score == Unscored("the item has no description of its target")


def test_a_file_that_is_no_viclip_is_named(
    viclip_state: dict[str, torch.Tensor], tokenizer: Path, tmp_path: Path
) -> None:
    for name, content in (
        ("missing", None),
        ("half", {k: v for k, v in viclip_state.items() if "proj" not in k}),
        ("extra", viclip_state | {"more": torch.zeros(1)}),
    ):
        path = tmp_path / f"{name}.pth"
        if content is not None:
            torch.save({"model": content}, path)
        with pytest.raises(BenchmarkError, match=str(path)):
            ViClip(str(path), str(tokenizer)).text("a")
    path = tmp_path / "noise.pth"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(BenchmarkError, match="cannot be read"):
        ViClip(str(path), str(tokenizer)).text("a")
