"""The text of a request is read once, when it is checked; all that follows works on what was read."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import Editor
from model.app.service import AppConfig, EditService
from model.cli import main
from model.inference.instruction import check_instruction, compose_instruction
from model.inference.templates import FORMS
from model.sequence.interleave import SequenceError
from shards.media import write_video
from shards.sample import split_text

TEXT = "<video1> Remove the dog."
SEARCHES = {"find", "rfind", "index", "count", "partition", "rpartition", "split", "replace", "removeprefix"}


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    t, y, x = np.mgrid[:7, :96, :128]
    return np.stack([x * 2, y * 2, 100 + 10 * t], -1).astype(np.uint8)


def readings(call: Callable[[], Any]) -> int:
    """How often a call looks for tags in an instruction, with a pattern of tags or a method of its text."""
    count = 0

    def profile(frame: FrameType, event: str, function: Any) -> None:
        nonlocal count
        owner = getattr(function, "__self__", None) if event == "c_call" else None
        if isinstance(owner, re.Pattern):
            # `match` and `fullmatch` ask whether a name is one, not where a text has its tags
            count += "video|image" in str(owner.pattern) and function.__name__ not in ("match", "fullmatch")
        elif isinstance(owner, str) and frame.f_globals["__name__"].startswith("model."):
            count += "<video1>" in owner and "the dog" in owner and function.__name__ in SEARCHES

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


def test_the_editor_reads_an_instruction_once(editor: Editor, clip: np.ndarray) -> None:
    assert readings(lambda: split_text(TEXT)) == 1  # what is counted
    assert readings(lambda: editor(TEXT, video1=clip, steps=1)) == 1  # two windows
    assert readings(lambda: editor(TEXT, video1=clip, steps=1, guidance=3.0, carry=True)) == 1
    assert readings(lambda: editor(TEXT, video1=clip, steps=1, ground=True)) == 1
    assert readings(lambda: editor([TEXT, TEXT], video1=[clip[:5]] * 2, steps=1)) == 2
    checked = check_instruction(TEXT, ["video1"])
    assert readings(lambda: editor(checked, video1=clip, steps=1, ground=True)) == 0


def test_page_and_command_read_it_once(editor: Editor, clip: np.ndarray, tmp_path: Path) -> None:
    video = tmp_path / "in.mp4"
    write_video(video, clip, 10)
    service = EditService(editor, AppConfig())
    arguments = {"video1": video}, tmp_path, lambda done, total: None
    assert readings(lambda: service.edit("me", TEXT, *arguments, steps=1)) == 1
    assert (tmp_path / "side_by_side.mp4").is_file()
    checkpoint = str(editor.save_pretrained(tmp_path / "editor"))
    options = ["--checkpoint", checkpoint, "--video1", str(video), "--out", str(tmp_path / "out.mp4")]
    assert readings(lambda: main(["edit", *options, "--text", TEXT, "--steps", "1"])) == 1
    assert (tmp_path / "out.mp4").is_file()


@pytest.mark.parametrize("ground", [False, True])
def test_nothing_behind_the_check_looks_at_the_text(editor: Editor, clip: np.ndarray, ground: bool) -> None:
    checked = check_instruction(TEXT, ["video1"])
    other = dataclasses.replace(checked, text="<image7> quite another text <mask>")
    edits = [editor(text, video1=clip, steps=1, ground=ground) for text in (TEXT, checked, other)]
    for edit in edits[1:]:
        assert np.array_equal(edit.frames, edits[0].frames)


def test_a_checked_instruction_is_for_its_own_media(editor: Editor, clip: np.ndarray) -> None:
    checked = check_instruction(TEXT, ["video1"])
    with pytest.raises(SequenceError, match="was checked for video1 to make <video2>; given are no media"):
        editor(checked)
    with pytest.raises(SequenceError, match=r"was checked for video1 to make <video2>; .* to make <video3>"):
        editor(checked, video1=clip, target="video3")


@pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
def test_it_holds_what_the_form_says(form: Any) -> None:
    checked = check_instruction(form.filled, form.sources)
    assert list(checked.parts) == split_text(form.filled)
    assert checked.inputs == checked.sources == form.sources
    assert checked.makes_image == form.target.startswith("image")
    assert compose_instruction(*checked.parts, target=form.target).parts == checked.parts


names = st.sampled_from(["video1", "video2", "image1", "mask"])
words = st.sampled_from(["Put", "the dog.", "there!", ",", " ", "\n", "and"])


@given(st.lists(names | words, max_size=6), st.sets(names))
def test_parts_are_those_of_the_text(pieces: list[str], media: set[str]) -> None:
    text = " ".join(f"<{piece}>" if piece[-1].isdigit() or piece == "mask" else piece for piece in pieces)
    try:
        checked = check_instruction(text, media)
    except SequenceError:
        return
    assert list(checked.parts) == split_text(checked.text)
    assert sorted(checked.inputs) == sorted(media)
    assert checked.target not in media


def test_a_result_needs_a_number_that_a_tag_may_have() -> None:
    with pytest.raises(SequenceError, match="no number is left for a result after <video99>"):
        check_instruction("<video99> Go.", ["video99"])
