"""From one accepted pair to its four samples: removal and addition, with and without the mask in the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curation.clips import Clip
from curation.naming import Appearance, captions, instruction
from shards.sample import ClipRef, Media, Provenance, Sample, Step

FORMS = (  # ending of the key, direction, whether the text names the mask
    ("remove", "removal", False),
    ("remove-mask", "removal", True),
    ("add", "addition", False),
    ("add-mask", "addition", True),
)


def samples_of(
    clip: Clip, pair: dict[str, Any], number: int, files: Path, license: str, steps: list[Step]
) -> list[tuple[Sample, dict[str, Path]]]:
    """The samples of a pair and their media files; all four share the same three files.

    `pair` is the pair stage's result: first, stop, frames, fps, height, width, scores, appearance.
    """
    appearance = Appearance(**pair["appearance"])
    shape = {"frames": pair["frames"], "fps": pair["fps"], "height": pair["height"], "width": pair["width"]}
    with_person, without = captions(appearance)
    span = ((clip.start + pair["first"]) / clip.fps, (clip.start + pair["stop"]) / clip.fps)
    provenance = Provenance(
        clip=ClipRef(
            sha256=clip.sha256, name=clip.name, span=(round(span[0], 4), round(span[1], 4)), license=license
        ),
        steps=steps,
    )
    made = []
    for ending, direction, masked in FORMS:
        source, target = ("source", "target") if direction == "removal" else ("target", "source")
        key = f"object_{direction}-{clip.key[:8]}-{number:04d}-{ending}"
        text = f"<video1> {instruction(key, appearance, direction, masked)} <video2>"
        sample = Sample(
            schema=1,
            key=key,
            split="heldout" if clip.split == "heldout" else "train",
            task=f"object_{direction}",
            text=text,
            targets=["video2"],
            media={
                "video1": Media(file="video1.mp4", kind="video", **shape),
                "video2": Media(file="video2.mp4", kind="video", **shape),
                "mask": Media(file="mask.mkv", kind="mask", **shape),
            },
            captions={
                "source": with_person if direction == "removal" else without,
                "target": without if direction == "removal" else with_person,
            },
            scores=pair["scores"],
            provenance=provenance,
        )
        paths = {
            "video1": files / f"{source}.mp4",
            "video2": files / f"{target}.mp4",
            "mask": files / "mask.mkv",
        }
        made.append((sample, paths))
    return made
