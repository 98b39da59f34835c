"""Files of an edit, looked at before it waits for a worker: what they are, and how long."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from model.inference.inputs import IMAGE_SUFFIXES
from model.inference.instruction import check_instruction
from model.serving.settings import MAX_TEXT, EditSettings
from shards.errors import SettingError
from shards.media import probe, read_image

MAGIC = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"BM": ".bmp"}  # how files of pictures begin
SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


def suffix_of(file: Path, name: str) -> str:
    """The suffix to keep a file under: by its content for pictures, else that of the name it came with."""
    with file.open("rb") as opened:
        head = opened.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return ".webp"
    for magic, suffix in MAGIC.items():
        if head.startswith(magic):
            return suffix
    suffix = Path(name).suffix.lower()
    return suffix if SUFFIX.fullmatch(suffix) and suffix not in IMAGE_SUFFIXES else ".video"


def check_text(text: str, names: list[str], settings: EditSettings) -> str:
    """The suffix of what a text makes of media of these names.

    Raises:
        SettingError: too long a text.
        SequenceError: text and media disagree.
    """
    if len(text) > MAX_TEXT:
        raise SettingError(f"text: {len(text)} characters, it may have {MAX_TEXT}")
    return ".png" if check_instruction(text, names, settings.target).makes_image else ".mp4"


def check_files(files: Mapping[str, Path], settings: EditSettings, max_frames: int) -> None:
    """Refuse what is no image or video, or too long, before anything waits for it.

    Raises:
        SettingError: too long, naming the element.
        MediaError: unreadable, naming the element.
    """
    length = settings.num_frames
    if length is not None and length > max_frames:
        raise SettingError(f"frames: {length} is too long, at most {max_frames} are made")
    stretch = isinstance(settings.frames, list)
    for name, file in files.items():
        if name.startswith("image") or file.suffix in IMAGE_SUFFIXES:
            read_image(file)
            continue
        frames = probe(file).frames
        if frames > max_frames and not stretch:
            raise SettingError(
                f"{name}: {frames} frames is too long, at most {max_frames} are taken; "
                'name a stretch of it, e.g. "frames": [0, 100]'
            )
