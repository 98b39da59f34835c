"""Video, mask and image in and out, in milliseconds per frame of 640x360.

The frames are noisy, so that the encoder has work to do.
"""

from __future__ import annotations

from pathlib import Path

from shards.media import read_image, read_mask, read_video, resize, write_image, write_mask, write_video
from tests.perf.measure import Figure, per, scene, timed

FRAMES, HEIGHT, WIDTH = 33, 360, 640


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Time each function of `shards.media` that a pipeline calls per frame."""
    frames = 5 if quick else FRAMES
    source, _, mask = scene(frames, HEIGHT, WIDTH)
    video, matte, image = scratch / "v.mp4", scratch / "m.mkv", scratch / "i.png"
    rows = {
        "write_video (H.264, crf 18)": (lambda: write_video(video, source, 10), frames),
        "read_video": (lambda: read_video(video), frames),
        "read_video, resized to 128x96": (lambda: read_video(video, size=(96, 128)), frames),
        "write_mask (FFV1)": (lambda: write_mask(matte, mask, 10), frames),
        "read_mask": (lambda: read_mask(matte), frames),
        "resize to 480x272 (area)": (lambda: resize(source, (272, 480)), frames),
        "write_image (PNG)": (lambda: write_image(image, source[0]), 1),
        "read_image": (lambda: read_image(image), 1),
    }
    return [
        per(what, timed(work, quick), count, "frame", "{} frames/s") for what, (work, count) in rows.items()
    ]
