"""DiffuEraser and ReCamMaster: stand-ins that refuse what the real programs refuse, started once or kept."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from curation.annotators import service
from curation.annotators.diffueraser import FPS, DiffuEraser, blend_of
from curation.annotators.external import Program
from curation.annotators.recammaster import ReCamMaster
from curation.cg.camera import MOVEMENTS
from curation.vlm.errors import AssetError
from curation.vlm.interface import AnnotatorError
from shards.media import write_video

Programs = Callable[..., Program]


@pytest.fixture
def program(checkout: Path) -> Iterator[Programs]:
    """`program(script, service, timeout, **environment)`; what was kept running ends with the test."""

    def make(script: str, service: bool = True, timeout: float = 60, **environment: str) -> Program:
        return Program(str(checkout), sys.executable, script, timeout, environment, service)

    (checkout / "loads.txt").unlink(missing_ok=True)
    yield make
    service.close_all()


def loads(checkout: Path) -> int:
    """How often a stand-in has loaded its weights in this test."""
    return len((checkout / "loads.txt").read_text().splitlines())


def long(clip: np.ndarray, count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Frames of 90x62, whose sides are no multiples of 8 and less than the program takes; a hole in them."""
    frames = np.concatenate([clip] * 5)[:count, :62, :90]
    mask = np.zeros(frames.shape[:3], bool)
    mask[:, 20:40, 20:50] = True
    return frames, mask


# ---- what the programs demand -----------------------------------------------------------------------------


def test_clips_of_all_rates_are_inpainted(clip: np.ndarray, program: Programs) -> None:
    frames, mask = long(clip, 22)
    eraser = DiffuEraser(program("run_diffueraser.py"))
    for fps in (24000 / 1001, 24, 25, 30000 / 1001, 30, 50, 60000 / 1001):
        made, changed = eraser.inpaint(frames, mask, fps)
        assert made.shape == frames.shape
        assert np.array_equal(made[~changed], frames[~changed])
        assert np.abs(made[mask].astype(int) - frames[mask]).mean() > 1
        assert changed[mask].all()


def test_the_stand_in_refuses_what_the_program_does(clip: np.ndarray, checkout: Path, tmp_path: Path) -> None:
    """NTSC rates, short videos and small ones, as the program's own code reads them."""
    frames, mask = long(clip)
    large = np.pad(frames, ((0, 0), (0, 194), (0, 166), (0, 0)))
    for fps, shown, said in (
        (30000 / 1001, large, "frame rate of all input videos"),
        (25, large[:21], "too short"),
        (25, frames, "larger than 256x256"),
        (25, large, ""),
    ):
        holes = np.pad(mask, ((0, 0), (0, 194), (0, 166)))[: len(shown), : shown.shape[1], : shown.shape[2]]
        write_video(tmp_path / "video.mp4", shown, fps, crf=0)
        write_video(tmp_path / "mask.mp4", holes[..., None] * np.full(3, 255, np.uint8), fps, crf=0)
        command = [sys.executable, "run_diffueraser.py", "--input_video", str(tmp_path / "video.mp4")]
        command += ["--input_mask", str(tmp_path / "mask.mp4"), "--save_path", str(tmp_path)]
        ended = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
        assert bool(ended.returncode) == bool(said)
        assert said in ended.stderr


def test_from_22_frames_on_any_number_will_do(clip: np.ndarray, program: Programs) -> None:
    frames, mask = long(clip, 29)
    eraser = DiffuEraser(program("run_diffueraser.py"))
    for count in (22, 29):
        assert len(eraser.inpaint(frames[:count], mask[:count], 25)[0]) == count
    with pytest.raises(AnnotatorError, match="21 frames, it needs at least 22"):
        eraser.inpaint(frames[:21], mask[:21], 25)


def test_larger_than_1920_is_refused_before_anything_runs(program: Programs) -> None:
    frames = np.zeros((22, 16, 1921, 3), np.uint8)
    with pytest.raises(AnnotatorError, match="1921x16 is larger than its 1920"):
        DiffuEraser(program("run_diffueraser.py")).inpaint(frames, frames[..., 0] > 0, 25)


def test_the_rim_is_the_programs_own(program: Programs) -> None:
    """A fill that is 12 levels off fades over the program's blur; nothing is cut at the given mask."""
    frames = np.full((22, 256, 256, 3), 120, np.uint8)
    mask = np.zeros(frames.shape[:3], bool)
    mask[:, 100:150, 100:150] = True
    made, changed = DiffuEraser(program("run_diffueraser.py", SHIFT="12")).inpaint(frames, mask, 25)
    row = made[10, 125, :, 0].astype(int)
    assert row[125] - row[50] >= 10
    assert np.abs(np.diff(row)).max() <= 7
    solid = slice(100 - 7, 150 + 7)  # eroded once, dilated 8 times
    assert (row[solid] >= 124).all()  # outside of the given mask, too
    reach = np.flatnonzero(changed[10, 125])
    assert (reach[0], reach[-1]) == (100 - 7 - 9, 149 + 7 + 9)  # the blur, as far as it is 1/255
    share = blend_of(mask, 8)
    assert (changed == (share > 0)).all()


def test_a_thin_mask_is_kept_in_what_is_returned(clip: np.ndarray, program: Programs) -> None:
    """The program's erosion removes what is thinner than three pixels; the mask must still contain it."""
    frames, mask = long(clip, 22)
    mask[:, 5, 60:80] = True
    made, changed = DiffuEraser(program("run_diffueraser.py")).inpaint(frames, mask, 25)
    assert changed[mask].all()
    assert np.array_equal(made[:, 5, 70:80], frames[:, 5, 70:80])


def test_recammaster_keeps_source_and_result_in_step(
    clip: np.ndarray, program: Programs, checkout: Path
) -> None:
    frames, _ = long(clip, 25)
    options = {"FRAMES": "25", "SIZE": "48x80"}
    kept = ReCamMaster(program("inference_recammaster.py", **options), frames=25, size=(48, 80))
    once = ReCamMaster(program("inference_recammaster.py", False, **options), frames=25, size=(48, 80))
    assert kept.movements() == MOVEMENTS
    results = []
    for mover, movement in ((kept, "Tilt Up"), (kept, "Pan Left"), (once, "Pan Left")):
        source, moved = mover.move(frames, movement, 12.0, 'A red ball, "quoted".')
        assert source.shape == moved.shape == (25, 48, 80, 3)
        step = MOVEMENTS.index(movement) + 1
        shifted = np.stack([np.roll(frame, step * t, axis=1) for t, frame in enumerate(source)])
        assert np.abs(shifted.astype(int) - moved).mean() < 12
        results.append(moved)
    assert np.array_equal(results[1], results[2])  # kept or not, the program is the same
    with pytest.raises(AnnotatorError, match="9 frames, it takes exactly 25"):
        kept.move(clip, "Tilt Up", 12.0, "A red ball.")
    short = ReCamMaster(kept.program, frames=9, size=(48, 80))  # its data are refused, and it goes on
    with pytest.raises(AnnotatorError, match=r"ReCamMaster: ValueError: .*is not a valid video"):
        short.move(clip, "Tilt Up", 12.0, "A red ball.")
    seeded = kept.move(frames, "Pan Left", 12.0, "A red ball.", seed=2)[1]
    assert np.mean(seeded.astype(int) - results[1]) > 1
    assert loads(checkout) == 2  # one for all clips of the kept one


# ---- programs that are kept running -----------------------------------------------------------------------


def test_weights_are_loaded_once_for_many_clips(clip: np.ndarray, program: Programs, checkout: Path) -> None:
    frames, mask = long(clip)
    inner = program("run_diffueraser.py")
    first, _ = DiffuEraser(inner).inpaint(frames, mask, 25)
    again, _ = DiffuEraser(inner).inpaint(frames, mask, 25)
    other, _ = DiffuEraser(inner).inpaint(frames, mask, 25, seed=1)
    once, _ = DiffuEraser(program("run_diffueraser.py", service=False)).inpaint(frames, mask, 25)
    assert loads(checkout) == 2  # one that is kept, one that is not
    assert np.array_equal(first, again)
    assert np.array_equal(first, once)
    assert not np.array_equal(first, other)


FAILURES = [
    ("crash", "CUDA error: an illegal memory access"),
    ("memory", "CUDA out of memory"),
    ("exit", ""),
    ("die", "was killed by signal 9: about to die"),
    ("hang", "did not end within 5 s and was stopped: sampling"),
    ("nothing", "wrote no"),
    ("size", "wrote frames of 128x128, not 256x256"),
    ("count", "wrote 12 frames, not 24"),
    ("rate", f"wrote 30 frames a second, not {FPS}"),
    ("garbage", "wrote a video that does not decode"),
]


@pytest.mark.parametrize(("fail", "said"), FAILURES)
def test_every_failure_is_told_in_a_line_and_the_next_clip_may_do(
    clip: np.ndarray, program: Programs, checkout: Path, fail: str, said: str
) -> None:
    frames, mask = long(clip)
    inner = program("run_diffueraser.py", timeout=5 if fail == "hang" else 60, FAIL=fail)
    for _ in range(2 if fail in ("crash", "die") else 1):
        with pytest.raises(AnnotatorError) as told:
            DiffuEraser(inner).inpaint(frames, mask, 25)
        assert str(told.value).startswith("DiffuEraser: ")
        assert (said or "gave up: exit") in str(told.value)
        assert len(str(told.value).splitlines()) == 1
    if fail in ("crash", "die"):  # an error leaves the weights loaded, a death does not
        assert loads(checkout) == (1 if fail == "crash" else 2)
    if fail == "crash":
        inner = program("run_diffueraser.py", False, FAIL=fail)
        with pytest.raises(AnnotatorError, match=f"DiffuEraser: .*{said}"):
            DiffuEraser(inner).inpaint(frames, mask, 25)


def test_what_a_program_prints_is_no_answer(clip: np.ndarray, program: Programs) -> None:
    frames, mask = long(clip)
    eraser = DiffuEraser(program("run_diffueraser.py", FAIL="warn"))
    for _ in range(2):
        made, _ = eraser.inpaint(frames, mask, 25)
    quiet, _ = DiffuEraser(program("run_diffueraser.py")).inpaint(frames, mask, 25)
    assert np.array_equal(made, quiet)


def test_recammaster_starts_anew_after_a_failure(clip: np.ndarray, program: Programs, checkout: Path) -> None:
    """Its script ends with the first error in its loop."""
    frames, _ = long(clip, 25)
    inner = program("inference_recammaster.py", FRAMES="25", SIZE="48x80", FAIL="crash")
    for count in (1, 2):
        with pytest.raises(AnnotatorError, match=r"ReCamMaster: RuntimeError: .*illegal memory access"):
            ReCamMaster(inner, frames=25, size=(48, 80)).move(frames, "Tilt Up", 12.0, "A ball.")
        assert loads(checkout) == count


def test_another_environment_ends_the_run(clip: np.ndarray, program: Programs) -> None:
    """A missing package or weights that do not load are no fault of a clip."""
    frames, mask = long(clip)
    for fail, said in (
        ("foreign", "ModuleNotFoundError: No module named"),
        ("weights", "OSError: Error no file"),
    ):
        with pytest.raises(AssetError, match=f"DiffuEraser: it does not load in the environment of .*{said}"):
            DiffuEraser(program("run_diffueraser.py", FAIL=fail)).inpaint(frames, mask, 25)
    with pytest.raises(AssetError, match=r"No module named .*is not its environment"):
        DiffuEraser(program("run_diffueraser.py", False, FAIL="foreign")).inpaint(frames, mask, 25)


def test_a_kept_program_ends_with_its_parent(checkout: Path) -> None:
    """Also when the parent is killed in the middle of a clip, so that nothing stays on the card."""
    code = (
        "import sys, numpy as np\n"
        "from curation.annotators.diffueraser import DiffuEraser\n"
        "from curation.annotators.external import Program\n"
        "inner = Program(sys.argv[1], sys.executable, 'run_diffueraser.py', 60, {'FAIL': 'hang'})\n"
        "frames = np.zeros((22, 64, 64, 3), np.uint8)\n"
        "DiffuEraser(inner).inpaint(frames, frames[..., 0] == 0, 25)\n"
    )
    (checkout / "loads.txt").unlink(missing_ok=True)
    parent = subprocess.Popen([sys.executable, "-c", code, str(checkout)])
    deadline = time.monotonic() + 60
    while not (checkout / "loads.txt").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    child = int((checkout / "loads.txt").read_text().split()[0])
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


# ---- what is missing --------------------------------------------------------------------------------------


def test_missing_parts_are_named(checkout: Path, tmp_path: Path) -> None:
    def eraser(folder: Path, script: str = "run_diffueraser.py", python: str = sys.executable) -> DiffuEraser:
        return DiffuEraser(Program(str(folder), python, script))

    eraser(checkout).describe()
    ReCamMaster(Program(str(checkout), sys.executable, "inference_recammaster.py")).describe()
    for missing in (eraser(tmp_path), eraser(checkout, "none.py")):
        with pytest.raises(AssetError, match=r"no such program; clone github.com/lixiaowen-xw/DiffuEraser"):
            missing.describe()
    with pytest.raises(AssetError, match=r"/no/python: no such interpreter"):
        eraser(checkout, python="/no/python").describe()


@pytest.mark.parametrize("content", [None, b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:1"])
def test_weights_that_were_half_downloaded_are_named(checkout: Path, content: bytes | None) -> None:
    for path, annotator in (
        ("weights/PCM_Weights/sd15/pcm_sd15_smallcfg_2step_converted.safetensors", DiffuEraser),
        ("models/Wan-AI/Wan2.1-T2V-1.3B/Wan2.1_VAE.pth", ReCamMaster),
    ):
        script = "run_diffueraser.py" if annotator is DiffuEraser else "inference_recammaster.py"
        file = checkout / path
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        try:
            with pytest.raises(AssetError, match="missing, or not downloaded to its end") as told:
                annotator(Program(str(checkout), sys.executable, script)).describe()
            assert path in str(told.value)
        finally:
            file.write_bytes(b"weights")
