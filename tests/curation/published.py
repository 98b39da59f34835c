"""Shards of a few made-up samples, published as a run does."""

from __future__ import annotations

from pathlib import Path

from curation.engine.output import Output
from shards.sample import Media, Sample
from shards.writer import Item

PROVENANCE = {
    "clip": {"sha256": "0" * 64, "name": "a.mp4", "span": (0, 2), "license": "CC0-1.0"},
    "steps": [],
}


def samples(video: Path, count: int, text: str = "Remove the dog.") -> list[Item]:
    """Items whose shards depend on their text."""
    medium = Media(file="video1.mp4", kind="video", frames=20, fps=10.0, height=32, width=32)
    made: list[Item] = []
    for number in range(count):
        values = {
            "schema": 1,
            "key": f"edit-{number}",
            "split": "train",
            "task": "edit",
            "targets": ["video1"],
        }
        values |= {"text": f"{text} <video1>", "media": {"video1": medium}, "provenance": PROVENANCE}
        made.append((Sample.model_validate(values), {"video1": video}))
    return made


def publish(url: str, items: list[Item]) -> None:
    output = Output(url)
    output.check()
    with output.held():
        output.claim("edit", "same")
        output.write_shards(items)
        (output.local / "gallery.html").write_text("page")
        output.publish()
