"""What each published program says of a file, beside what ours says: one line per value."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmark.core.item import Geometry, Loaded, Mode, Reference, Unscored
from benchmark.core.media import read_frames
from benchmark.core.stored_frames import by_av
from benchmark.features.aesthetic import AestheticPredictor
from benchmark.features.clip import Clip, Dino
from benchmark.features.viclip import ViClip
from benchmark.judges.image_judge import PictureJudge
from benchmark.metrics.aesthetic import Aesthetic
from benchmark.metrics.base import Metric, score
from benchmark.metrics.temporal import TemporalConsistency
from benchmark.metrics.text import FrameAlignment, VideoAlignment
from benchmark.suites.imgedit import Suite
from tests.parity import material, published

CLOSE, SCALED = 1e-5, 1e-4  # of values up to 1, and of those that are scaled by 100
OFFICIAL: Mode = "official"
CPU = torch.device("cpu")
CLIP, DINO = "openai/clip-vit-large-patch14", "facebook/dinov2-base"
PICK, PICK_INPUT = "yuvalkirstain/PickScore_v1", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
AESTHETIC = "shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE"


class Line(NamedTuple):
    """A value of both programs."""

    program: str
    clip: str
    name: str
    published: float
    ours: float
    tolerance: float

    @property
    def apart(self) -> float:
        """Absolute difference."""
        return abs(self.published - self.ours)

    @property
    def fits(self) -> bool:
        """Whether it is within the tolerance."""
        return self.apart <= self.tolerance


def ours(metric: Metric, frames: np.ndarray) -> float:
    """Our score of a clip, whose description is `material.PROMPT`."""
    reference = Reference(
        Loaded(frames, None, None, 8.0, {}), Geometry(*frames.shape[:3], 8.0), {"target": material.PROMPT}
    )
    found = metric(reference, frames)
    if isinstance(found, Unscored):
        raise ValueError(f"{metric.name}: {found.reason}")
    return float(found)


def official(made: dict[str, Path]) -> dict[str, Metric]:
    """Our metrics of EditVerseBench by the published name of their column; ViCLIP's by width of its heads."""
    clip, pick = (Clip(str(made[name]), mode=OFFICIAL) for name in ("clip", "pick"))
    dino = Dino(str(made["dino"]), mode=OFFICIAL)
    found: dict[str, Metric] = {
        "clip_temporal_consistency": TemporalConsistency(clip, "clip", "clip", OFFICIAL),
        "dino_temporal_consistency": TemporalConsistency(dino, "dino", "dino", OFFICIAL),
        "frame_text_alignment": FrameAlignment(clip, "frame", "frame", OFFICIAL),
        "pick_score_video_quality": FrameAlignment(pick, "pick", "pick", OFFICIAL, shrink=True),
    }
    for width in material.HEAD_WIDTHS:
        network = ViClip(str(made[f"viclip{width}"]), str(made["tokenizer"]))
        found[f"video_text_alignment, heads of {width}"] = VideoAlignment(network, mode=OFFICIAL)
    return found


def editverse(repo: Path, root: Path) -> list[Line]:
    """EditVerse's five metrics without a judge, and the frames that they see."""
    made = material.write_networks(root / "networks")
    folders = {CLIP: made["clip"], DINO: made["dino"], PICK: made["pick"], PICK_INPUT: made["pick"]}
    classes = {
        "clip_temporal_consistency": "ClipTemporalConsistency",
        "dino_temporal_consistency": "DinoTemporalConsistency",
        "frame_text_alignment": "FrameTextAlignment",
        "pick_score_video_quality": "PickScoreVideoQuality",
    }
    lines = []
    with published.checkout(repo):
        theirs: dict[str, Callable[[list[Any]], float]] = {}
        for name, kind in classes.items():
            module = importlib.import_module(f"automatic_evaluation.{name}")
            published.redirected(module, folders)
            theirs[name] = _asked(getattr(module, kind)(CPU), "text" in name or "pick" in name)
        module = importlib.import_module("automatic_evaluation.video_text_alignment")
        package = importlib.import_module("automatic_evaluation.viclip")
        for width in material.HEAD_WIDTHS:
            evaluator = module.VideoTextAlignment.__new__(module.VideoTextAlignment)
            evaluator.device = CPU
            evaluator.model, size, _ = published.viclip(package, made[f"viclip{width}"], root / "bpe.gz")
            evaluator.image_transform = package.clip_image_transform(size)
            theirs[f"video_text_alignment, heads of {width}"] = _asked(evaluator, True)
        mine = official(made)
        for seed, (clip, size) in enumerate(material.SIZES.items()):
            path = material.write_clip(root / clip / "generate.mp4", seed, *size)
            pictures, frames = by_decord(path), np.stack(list(by_av(path)))
            lines.append(pixels("EditVerse", clip, pictures, frames))
            for name, metric in mine.items():
                tolerance = CLOSE if "temporal" in name else SCALED
                lines.append(
                    Line("EditVerse", clip, name, theirs[name](pictures), ours(metric, frames), tolerance)
                )
    return lines


def _asked(evaluator: Any, with_prompt: bool) -> Callable[[list[Any]], float]:
    more = (material.PROMPT,) if with_prompt else ()
    return lambda pictures: evaluator.evaluate(pictures, *more)


def by_decord(path: Path) -> list[Any]:
    """Frames as the published `evaluate` reads them."""
    decord: Any = importlib.import_module("decord")
    reader = decord.VideoReader(str(path), num_threads=1)
    return [Image.fromarray(reader[n].asnumpy()) for n in range(len(reader))]


def pixels(program: str, clip: str, pictures: list[Any], frames: np.ndarray) -> Line:
    """By how many grey levels frames differ on average; infinite where they are others in number or size."""
    theirs = np.stack([np.asarray(picture) for picture in pictures])
    same = theirs.shape == frames.shape
    apart = float(np.abs(theirs.astype(int) - frames).mean()) if same else float("inf")
    return Line(program, clip, "frames: grey levels apart", 0.0, apart, 0.0)


def v2vbench(repo: Path, root: Path) -> list[Line]:
    """V2VBench's metrics but DOVER, which we do not have, and motion alignment, whose flow we do not have.

    Clips have 24 frames: its ViCLIP takes every third.
    """
    made = material.write_networks(root / "networks")
    made["aesthetic"] = _aesthetic(root / "aesthetic", made["clip"])
    folders = {CLIP: made["clip"], DINO: made["dino"], PICK: made["pick"], PICK_INPUT: made["pick"]}
    folders |= {AESTHETIC: made["aesthetic"]}
    known = official(made)
    mine: dict[str, tuple[str, Metric, float]] = {
        "aesthetic_score": (
            "AestheticScore",
            Aesthetic(AestheticPredictor(str(made["aesthetic"]), mode=OFFICIAL), mode=OFFICIAL),
            CLOSE,
        ),
        "clip_consistency": ("ClipConsistency", known["clip_temporal_consistency"], CLOSE),
        "dino_consistency": ("DinoConsistency", known["dino_temporal_consistency"], CLOSE),
        "clip_text_alignment": ("ClipTextAlignment", known["frame_text_alignment"], SCALED),
        "pick_score": ("PickScore", known["pick_score_video_quality"], SCALED),
    }
    path = material.write_clip(root / "clip" / "0.mp4", 4, 24, 72, 128)
    frames, lines = np.stack(list(by_av(path))), []
    with published.checkout(repo):
        load = importlib.import_module("v2vbench.utils").load_video
        lines.append(pixels("V2VBench", "0.mp4", load(path), frames))
        folder, animation = root / "clip" / "1", root / "clip" / "2.gif"
        folder.mkdir()
        pictures = [Image.fromarray(frame) for frame in frames[:12]]
        for n, picture in enumerate(pictures):
            picture.save(folder / f"{n}.png")  # without zeros in front: both sort 0, 1, 10, 11, 2
        pictures[0].save(animation, save_all=True, append_images=pictures[1:], duration=100)
        for place in (folder, animation):
            lines.append(pixels("V2VBench", place.name, load(place), read_frames(place, OFFICIAL)))
        for name, (kind, metric, tolerance) in mine.items():
            module = importlib.import_module(f"v2vbench.{name}")
            published.redirected(module, folders)
            evaluator = getattr(module, kind)(None, path, None, material.PROMPT, CPU)
            said = evaluator()["score"][0]
            lines.append(Line("V2VBench", "0.mp4", name, said, ours(metric, frames), tolerance))
        module = importlib.import_module("v2vbench.viclip_text_alignment")
        package = importlib.import_module("third_party.viclip")
        for width in material.HEAD_WIDTHS:
            file = made[f"viclip{width}"]
            model, size, _ = published.viclip(package, file, root / "bpe.gz")
            module.SimpleTokenizer = lambda bpe_path: None
            module.ViCLIP = lambda model=model, **_: model
            module.clip_image_transform = lambda _, size=size: package.clip_image_transform(size)
            said = module.ViclipTextAlignment(None, path, None, material.PROMPT, CPU)()["score"][0]
            network = ViClip(str(file), str(made["tokenizer"]))
            metric = VideoAlignment(network, mode=OFFICIAL, scale=1, stride=3)
            name = f"viclip_text_alignment, heads of {width}"
            lines.append(Line("V2VBench", "0.mp4", name, said, ours(metric, frames), CLOSE))
    return lines


def _aesthetic(folder: Path, clip: Path) -> Path:
    """A checkpoint of the second aesthetic predictor in its authors' layout, random, saved by their class."""
    package = importlib.import_module("aesthetics_predictor")
    from transformers import CLIPImageProcessorPil, CLIPModel

    tower = CLIPModel.from_pretrained(clip)
    config = tower.config.vision_config
    config.projection_dim = tower.config.projection_dim
    torch.manual_seed(7)
    model = package.AestheticsPredictorV2Linear(config)
    for parameter in model.layers.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.load_state_dict(tower.state_dict(), strict=False)
    model.save_pretrained(folder)
    CLIPImageProcessorPil.from_pretrained(clip).save_pretrained(folder)
    from transformers import CLIPTokenizer

    CLIPTokenizer.from_pretrained(clip).save_pretrained(folder)
    return folder


def imgedit(repo: Path, root: Path) -> list[Line]:
    """How ImgEdit reads a judge's answers, and its means over kinds."""
    answers = {
        "add": "Brief reasoning: fine.\nPrompt Compliance: 5\nVisual Seamlessness: 4\nPhysical Fidelity: 4",
        "remove": "A: 3\nB: 3.\nC: 2/5",  # two lines do not parse, and are left out
        "style": "Reasoning: 5 of 5\nOne: 1\nTwo: 2\nThree: 2",
        "again": "One: 5\nTwo: 5\nThree: 5",
    }
    kinds = {"add": "add", "remove": "remove", "style": "style", "again": "add"}
    root.mkdir(parents=True)
    (root / "prompts.json").write_text(json.dumps(dict.fromkeys(kinds.values(), "<edit_prompt>")))
    entries = {key: {"id": "a.png", "prompt": key, "edit_type": kind} for key, kind in kinds.items()}
    (root / "basic_edit.json").write_text(json.dumps(entries))
    Image.new("RGB", (64, 64)).save(root / "a.png")
    with published.checkout(repo / "Benchmark" / "Basic"):
        first = importlib.import_module("step1_get_avgscore")
        second = importlib.import_module("step2_typescore")
        theirs = first.compute_averages(answers)
        by_kind = second.compute_edit_type_averages(theirs, entries)
    judge = PictureJudge(Answers(answers), prompts=str(root / "prompts.json"), mode=OFFICIAL)
    suite = Suite(root)
    mine: dict[str, float | None] = {}
    for item in suite.items:
        assert item.native is not None
        reference = Reference(item.load, item.native, item.prompts)
        mine[item.id] = float(score(judge, reference, reference.original))  # type: ignore[arg-type]
    lines = [
        Line("ImgEdit", key, "mean of an answer's lines", said, float(mine[key] or 0), CLOSE)
        for key, said in theirs.items()
    ]
    found = {a.label: a.value for a in suite.aggregate({key: {"judge": s} for key, s in mine.items()})}
    for kind, said in by_kind.items():
        value = round(found[f"judge, {kind}"] or 0.0, 2)  # the published script rounds
        lines.append(Line("ImgEdit", kind, "mean of a kind", said, value, CLOSE))
    return lines


class Answers:
    """A judge that says what is written down for an instruction."""

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers

    def ask(self, media: Any, text: str) -> str:
        """The answer to a prompt that is the instruction alone."""
        return self.answers[text]
