"""A small shard folder with every kind of pair: videos and images, masks, references, text to image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from shards.media import write_image, write_mask, write_video
from shards.sample import ClipRef, Media, Provenance, Sample, Step
from shards.writer import Item, write_shards

FRAMES, HEIGHT, WIDTH, FPS = 5, 32, 48, 10.0


def pictures(seed: int, frames: int = FRAMES) -> np.ndarray:
    """uint8 RGB [frames, 32, 48, 3]: a soft field of its own colours that drifts."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    phase = rng.uniform(0, 6, 3)
    found = [
        np.stack([120 + 90 * np.sin((x + 2 * t) / 11 + y / 9 + p) for p in phase], -1) for t in range(frames)
    ]
    return np.stack(found).astype(np.uint8)


def square(frames: int = FRAMES) -> np.ndarray:
    """A mask, bool [frames, 32, 48]."""
    mask = np.zeros((frames, HEIGHT, WIDTH), bool)
    mask[:, 8:20, 12:30] = True
    return mask


def sample(
    folder: Path,
    key: str,
    task: str,
    text: str,
    elements: Mapping[str, int],
    target: str,
    split: str = "train",
    license: str = "CC-BY-4.0",
    captions: Mapping[str, str] | None = None,
    scores: Mapping[str, float | None] | None = None,
) -> Item:
    """A sample and its files; `elements` gives each one's seed. Beside images a mask has one frame."""
    frames = 1 if target.startswith("image") else FRAMES
    media, files = {}, {}
    for name, seed in elements.items():
        kind = name.rstrip("0123456789")
        count = 1 if kind == "image" else frames
        path = folder / f"{key}.{name}.{ {'video': 'mp4', 'image': 'png', 'mask': 'mkv'}[kind] }"
        if kind == "image":
            write_image(path, pictures(seed, 1)[0])
        elif kind == "mask":
            write_mask(path, square(count), FPS)
        else:
            write_video(path, pictures(seed), FPS)
        media[name] = Media.model_validate(
            {
                "file": f"{name}{path.suffix}",
                "kind": kind,
                "frames": count,
                "fps": None if kind == "image" else FPS,
                "height": HEIGHT,
                "width": WIDTH,
            }
        )
        files[name] = path
    clip = ClipRef(sha256=f"{sum(map(ord, key)):064x}", name=f"{key}.mp4", span=(0.0, 0.5), license=license)
    made = Sample.model_validate(
        {
            "key": key,
            "split": split,
            "task": task,
            "text": text,
            "targets": [target],
            "media": media,
            "captions": dict(captions or {}),
            "scores": dict(scores or {}),
            "provenance": Provenance(clip=clip, steps=[Step(stage="edit", backend="test", model="painter")]),
        }
    )
    return made, files


def video_items(folder: Path) -> list[Item]:
    """A removal with its addition, a style, a removal by a mask in the text, a propagation; one held out."""
    pair = {"video1": 1, "video2": 2, "mask": 0}
    said = {"source": "A dog on a lawn.", "target": "A lawn."}
    removal, addition = "<video1> Remove the dog. <video2>", "<video1> Add a dog on the left. <video2>"
    back = {"video1": 2, "video2": 1, "mask": 0}
    graded = {"sharpness": 0.75, "aesthetics": None}
    return [
        sample(
            folder, "dog-removal", "object_removal", removal, pair, "video2", captions=said, scores=graded
        ),
        sample(
            folder, "dog-addition", "object_addition", addition, back, "video2", scores={"sharpness": 0.25}
        ),
        sample(
            folder,
            "style",
            "style_transfer",
            "<video1> Make it a watercolour, then frame it. <video2>",
            {"video1": 3, "video2": 4},
            "video2",
            license="CC0-1.0 (rendered)",
        ),
        sample(
            folder,
            "masked",
            "object_removal",
            "<video1> Remove what <mask> marks. <video2>",
            {"video1": 5, "video2": 6, "mask": 0},
            "video2",
        ),
        sample(
            folder,
            "propagated",
            "propagation",
            "<video1> edit the video following the first frame <image1>. <video2>",
            {"video1": 7, "video2": 8, "image1": 8},
            "video2",
        ),
        sample(folder, "film", "text_to_video", "A film of waves. <video1>", {"video1": 9}, "video1"),
        sample(
            folder, "kept", "object_removal", removal, {"video1": 10, "video2": 11}, "video2", split="heldout"
        ),
    ]


def image_items(folder: Path) -> list[Item]:
    """Two edits of images, one with mask, captions and OmniEdit's grades; and a text to image."""
    said = {"source": "A cat.", "target": "A cat with a hat, \u00fcber alles."}
    text = '<image1> Give the cat a "red" hat, please: \u00fc. <image2>'
    return [
        sample(
            folder,
            "cat-hat",
            "object_addition",
            text,
            {"image1": 20, "image2": 21, "mask": 0},
            "image2",
            captions=said,
            scores={"pq": 8.5, "overall": None},
        ),
        sample(
            folder,
            "snow",
            "style_transfer",
            "<image1> Let it snow. <image2>",
            {"image1": 22, "image2": 23},
            "image2",
        ),
        sample(folder, "poster", "text_to_image", "A poster of a boat. <image1>", {"image1": 24}, "image1"),
    ]


def write_folder(folder: Path, items: list[Item]) -> Path:
    """Shards of two samples each."""
    write_shards(folder, items, max_samples=2)
    return folder
