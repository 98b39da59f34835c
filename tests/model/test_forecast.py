"""What a long edit will take is said before its video is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from model import Editor
from tests.model.serving import tiny_checkpoint, tiny_video


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Editor:
    return Editor.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("tiny")))


def announced(editor: Editor, video: Path, out: Path | None, **options: bool) -> list[str]:
    said: list[str] = []
    with editor.stream("<video1> Go.", video1=video, out=out, announce=said.append, **options) as stream:
        assert len(stream.spans) > 0
    return said


def test_frames_windows_and_room_are_told_before_a_long_edit(editor: Editor, tmp_path: Path) -> None:
    long, out = tiny_video(tmp_path / "long.mp4", 20), tmp_path / "out.mp4"
    (line,) = announced(editor, long, out)
    windows = len(editor.stream("<video1> Go.", video1=long).spans)
    assert line == (
        f"20 frames of 48x32, 0:00:02 · {windows} windows or more, edited at 48x32 · time unknown until the "
        f"first is done · 1 MB in {out}.parts while it is made, beside the result"
    )
    assert "2 times each" in announced(editor, long, out, ground=True)[0]
    assert "parts" not in announced(editor, long, None)[0]
    assert announced(editor, tiny_video(tmp_path / "short.mp4"), out) == []
