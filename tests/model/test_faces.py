"""Faces of a source that an edit is not about stay; those that it is about do not."""

from __future__ import annotations

from pathlib import Path

import cv2
import matplotlib.cbook
import numpy as np
import pytest

from curation.sources.assets import MODELS, fetch
from model import Editor
from model.extras import face_detector
from model.extras.face_detector import FILE, detector_is_there
from model.extras.faces import (
    FacePolicy,
    about_people,
    choose_faces,
    faces_to_keep,
    find_faces,
    policy_for,
    say_once,
)
from shards.errors import SettingError
from shards.media import read_image, resize

ROOT = Path(__file__).resolve().parents[2]
SIZE = 160, 224
FACE = 32  # pixels from forehead to chin of the portrait as it is pasted


@pytest.fixture(scope="module", autouse=True)
def detector() -> None:
    fetch(tuple(asset for asset in MODELS if asset.name == FILE.name), ROOT / FILE.parent)


@pytest.fixture(scope="module")
def street() -> np.ndarray:
    """uint8 [6, 160, 224, 3]: a portrait that moves two pixels a frame over a quiet wall."""
    photograph = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    portrait = resize(read_image(Path(str(photograph))), (90, 77))
    noise = np.random.default_rng(0).integers(90, 130, (SIZE[0] // 8, SIZE[1] // 8, 3)).astype(np.uint8)
    video = np.stack([cv2.resize(noise, SIZE[::-1], interpolation=cv2.INTER_CUBIC)] * 6)
    for t in range(6):
        video[t, 40:130, 60 + 2 * t : 137 + 2 * t] = portrait
    return video


def middle(video: np.ndarray, t: int) -> np.ndarray:
    """Eyes, nose and mouth of the portrait in a frame."""
    return video[t, 66:86, 90 + 2 * t : 108 + 2 * t]


def test_a_small_face_that_moves_is_found_in_every_frame_and_nothing_else_is(street: np.ndarray) -> None:
    (track,) = find_faces(street)
    assert sorted(track) == list(range(6))
    for t, (x, y, w, h) in track.items():
        assert abs(x + w / 2 - (98 + 2 * t)) < 5
        assert abs(y + h / 2 - 75) < 6
        assert FACE * 0.7 < h < FACE * 1.3
    walls = np.concatenate([street[:3, :, :56], street[:3, :, 168:]], axis=2)
    assert not find_faces(walls)


def test_a_face_stays_where_its_surroundings_do(street: np.ndarray) -> None:
    edit = street.copy()
    for t in range(6):
        middle(edit, t)[:] = 255 - middle(edit, t)
    change = (edit != street).any(-1)
    marks = faces_to_keep(edit, street, change, FacePolicy.UNASKED)
    for t in range(6):
        assert middle(marks, t).all()
    assert 0.01 < (marks > 0).mean() < 0.1
    assert not faces_to_keep(edit, street, change, FacePolicy.NONE).any()
    assert not faces_to_keep(edit, street, np.zeros_like(change), FacePolicy.UNASKED).any()  # nothing changed
    inside = np.zeros((1, *SIZE), bool)
    inside[:, :, :112] = True  # of a mask: there the edit may do as it likes
    masked = faces_to_keep(edit, street, change, FacePolicy.UNASKED, inside)
    assert not masked[:, :, :112].any()
    assert masked[:, :, 112:].any()
    assert faces_to_keep(edit, street, change, FacePolicy.ALL, inside)[:, :, :112].any()


@pytest.mark.parametrize("change", ["night", "colours", "gone"])
def test_no_face_of_before_looks_out_of_an_edit_of_all_around_it(street: np.ndarray, change: str) -> None:
    edit = street // 3 if change == "night" else np.roll(street, 1, axis=-1)
    if change == "gone":
        edit = street.copy()
        edit[:, 40:130, 60:150] = 110
    assert not faces_to_keep(edit, street, None, FacePolicy.UNASKED).any()
    assert faces_to_keep(edit, street, None, FacePolicy.ALL).any()


@pytest.mark.parametrize(
    ("words", "about"),
    [
        ("Remove the car.", False),
        ("Make the bike red and the sky darker", False),
        ("Replace the background with a beach", False),
        ("Remove the cyclists", True),
        ("Give her red HAIR", True),
        ("Add sunglasses", True),
        ("Make the old man smile", True),
    ],
)
def test_words_about_people_are_told(words: str, about: bool) -> None:
    assert about_people(words) is about
    assert policy_for(words, FacePolicy.UNASKED, edits=True) is (
        FacePolicy.NONE if about else FacePolicy.UNASKED
    )
    assert policy_for(words, FacePolicy.ALL, edits=True) is FacePolicy.ALL


def test_what_is_asked_decides_which_faces_are_kept() -> None:
    assert choose_faces(None, None, None) is FacePolicy.UNASKED
    assert choose_faces(None, 1, None) is FacePolicy.UNASKED
    assert choose_faces(None, 0, False) is FacePolicy.NONE
    assert choose_faces(None, None, False) is FacePolicy.NONE
    assert choose_faces(False, 1, None) is FacePolicy.NONE
    assert choose_faces(True, None, None) is FacePolicy.ALL
    assert policy_for("Go.", FacePolicy.ALL, edits=False) is FacePolicy.NONE


def test_without_the_detector_it_is_said_and_another_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    say_once.cache_clear()  # another test of this process may have missed the file, too
    for _ in range(2):
        assert policy_for("Remove the car.", FacePolicy.UNASKED, edits=True) is FacePolicy.NONE
    line = f"{FILE} is missing; run: python -m curation models fetch"
    assert [record.getMessage() for record in caplog.records] == [f"faces are not looked for: {line}"]
    with pytest.raises(SettingError, match=f"^keep_faces: {FILE} is missing"):
        policy_for("Remove the car.", FacePolicy.ALL, edits=True)
    FILE.parent.mkdir(parents=True)
    FILE.write_bytes(b"another network")
    with pytest.raises(SettingError, match=r"centerface\.onnx: is not the face detector that is known"):
        detector_is_there()


def test_the_file_that_is_fetched_is_the_one_that_is_read() -> None:
    (asset,) = (asset for asset in MODELS if asset.name == FILE.name)
    assert asset.sha256 == face_detector.SHA256
    assert detector_is_there(ROOT / FILE)


@pytest.mark.slow
def test_nano_keeps_a_face_that_nobody_asked_about(
    street: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    nano = Editor.from_pretrained("nano")
    asked = {"video1": street, "seed": 1}
    words = "<video1> Remove the red ball."  # there is none, and nano takes the face for it
    free, kept = nano(words, keep_faces=False, **asked), nano(words, **asked)
    assert free.faces is None
    assert kept.faces == 6
    assert "faces kept in 6 of 6 frames" in kept.describe()
    spoiled = [np.abs(middle(free.frames, t).astype(int) - middle(street, t)).mean() for t in range(6)]
    assert np.mean(spoiled) > 3
    for t in range(6):
        assert np.array_equal(middle(kept.frames, t), middle(street, t))
    about = nano("<video1> Remove the red ball from the man.", **asked)
    assert about.faces is None
    masked = nano(words, keep=1, **asked)
    assert masked.mask is not None
    assert not middle(masked.mask, 3).any()
