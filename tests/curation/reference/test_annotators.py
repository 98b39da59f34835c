"""The reference annotators, one by one, on tiny models and programs of the real command lines."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler
from diffusers.pipelines.flux import pipeline_flux_kontext as kontext
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as qwen_edit_plus
from hypothesis import given
from hypothesis import strategies as st

from curation.annotators.depth_anything import DepthAnything
from curation.annotators.grounded_sam2 import GroundedSam2
from curation.annotators.grounding_dino import GroundingDino, GroundingDinoPackage, caption_of, choose
from curation.annotators.image_editor import DiffusersEditor, drawing_size
from curation.annotators.rtmpose import RtmPose
from curation.annotators.sam2 import Sam2Hub, Sam2Package
from curation.annotators.sam3 import Sam3, Sam3Detector, Sam3Tracker
from curation.annotators.vace import GeneratedFill, WanVace, scheduler_of
from curation.core.interfaces import Detections
from curation.ops.canvas import place
from curation.ops.control_signals import grey_video
from curation.vlm.errors import AssetError
from curation.vlm.interface import AnnotatorError, Backend
from shards.errors import SettingError
from tests.curation.reference.tiny_models import SAM2

BOXES = np.array([[10, 10, 40, 40], [30, 20, 60, 60]], np.float32)


# ---- detection --------------------------------------------------------------------------------------------


def test_both_grounding_dinos_find_by_name(
    tiny: Callable[[str], str], dino_file: tuple[Path, Path], clip: np.ndarray
) -> None:
    package = GroundingDinoPackage(str(dino_file[0]), text_encoder=str(dino_file[1]), threshold=0.0, side=256)
    for detector in (GroundingDino(tiny("grounding_dino"), threshold=0.0), package):
        found = detector.find(clip[0], ["Person.", "red ball"])
        assert len(found.boxes) == len(found.scores) == len(found.labels) > 0
        assert set(found.labels) <= {"Person.", "red ball"}
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [96, 64, 96, 64]).all()
        assert (np.diff(found.scores) <= 0).all()
        again = detector.find(clip[0], ["Person.", "red ball"])
        assert np.array_equal(again.boxes, found.boxes)


def test_no_name_is_refused(tiny: Callable[[str], str], clip: np.ndarray) -> None:
    for names in ([], [" . "]):
        with pytest.raises(ValueError, match="names"):
            GroundingDino(tiny("grounding_dino")).find(clip[0], names)


@given(st.lists(st.text("abc .", min_size=1, max_size=8).filter(lambda s: s.strip(" .")), min_size=1))
def test_every_name_has_its_place_in_the_text(names: list[str]) -> None:
    text, spans = caption_of(names)
    assert len(spans) == len(names)
    for name, (start, stop) in zip(names, spans, strict=True):
        assert text[start:stop] == " ".join(name.replace(".", " ").split())
        assert text[stop] == "."


def test_a_box_goes_to_the_name_that_agrees_most() -> None:
    _, spans = caption_of(["dog", "cat"])
    offsets = np.array([[0, 0], [0, 3], [3, 4], [5, 8], [8, 9], [0, 0]])
    logits = np.full((3, 6), -9.0)
    logits[0, 1], logits[1, 3], logits[2, 3] = 2.0, 1.0, 0.5
    logits[0, 2] = 8.0  # a full stop names nothing
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 9]], np.float32)
    found = choose(logits, boxes, offsets, spans, ["dog", "cat"], 0.25, 0.7)
    assert found.labels == ("dog", "cat")  # two names may share a place; one name may not twice
    assert found.scores == pytest.approx(1 / (1 + np.exp([-2.0, -1.0])))


# ---- segmentation -----------------------------------------------------------------------------------------


def test_both_sam2s_go_both_ways(tiny: Callable[[str], str], sam2_file: Path, clip: np.ndarray) -> None:
    package = Sam2Package(str(sam2_file), "configs/sam2.1/sam2.1_hiera_t.yaml", SAM2)
    for segmenter in (Sam2Hub(tiny("sam2")), package):
        masks, present = segmenter.propagate(clip, 4, BOXES)
        assert masks.shape == (2, 9, 64, 96)
        assert masks.dtype == bool
        assert masks.any((2, 3)).all()  # before the seed, too
        assert ((present > 0.5) & (present <= 1)).all()


def test_sam_3_takes_the_place_of_each_and_of_both(tiny: Callable[[str], str], clip: np.ndarray) -> None:
    """One checkpoint, in the layout that is published, serves the detector, the tracker and the whole."""
    detector = Sam3Detector(tiny("sam3"), threshold=0.0)
    found = detector.find(clip[0], ["person", "red ball."])
    assert set(found.labels) == {"person", "red ball."}
    assert (np.diff(found.scores) <= 0).all()
    assert ((found.boxes >= 0) & (found.boxes <= [96, 64, 96, 64])).all()
    assert Sam3Detector(tiny("sam3"), threshold=1.1).find(clip[0], ["person"]).boxes.shape == (0, 4)
    with pytest.raises(ValueError, match="names"):
        detector.find(clip[0], [" . "])

    masks, present = Sam3Tracker(tiny("sam3")).propagate(clip[:5], 2, BOXES)
    assert masks.shape == (2, 5, 64, 96)
    assert masks.any((2, 3)).all()  # before the seed, too
    assert ((present > 0.5) & (present <= 1)).all()

    finder = Sam3(tiny("sam3"), every=4, threshold=0.0, most=3)
    keyframes, follower = finder.annotators()
    detected = keyframes.detect(clip[:5], ["person", "red ball."])
    assert sorted(detected) == [0, 4]
    things = follower.follow(clip[:5], detected)
    assert 0 < len(things) <= 3
    assert {thing.label for thing in things} <= {"person", "red ball."}
    for thing in things:
        assert thing.masks.shape == (5, 64, 96)
        assert thing.masks.any((1, 2)).sum() == thing.seen > 0
    for a, b in itertools.combinations(things, 2):  # noise finds the same thing many times
        assert (a.masks & b.masks).sum() < 0.7 * (a.masks | b.masks).sum()
    assert follower.follow(clip, {0: Detections(np.zeros((0, 4)), np.zeros(0), ())}) == []


class Boxes:
    """A detector that finds what it was told, so that the joining of tracks can be seen."""

    def __init__(self, found: dict[int, Detections], clip: np.ndarray) -> None:
        self.found, self.clip = found, clip

    def describe(self) -> Backend:
        return Backend("told")

    def find(self, frame: np.ndarray, names: list[str]) -> Detections:
        number = next(t for t, f in enumerate(self.clip) if np.array_equal(f, frame))
        return self.found.get(number, Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), ()))


class Rigid:
    """A segmenter whose masks are the boxes, standing still."""

    def describe(self) -> Backend:
        return Backend("rigid")

    def propagate(self, frames: np.ndarray, seed: int, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        masks = np.zeros((len(boxes), *frames.shape[:3]), bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
            mask[:, top:bottom, left:right] = True
        return masks, np.ones((len(boxes), len(frames)), np.float32)


def found(*rows: tuple[list[float], float, str]) -> Detections:
    boxes, scores, labels = zip(*rows, strict=True)
    return Detections(np.array(boxes, np.float32), np.array(scores, np.float32), labels)


def test_tracks_keep_names_and_scores_and_survive_a_miss(clip: np.ndarray) -> None:
    a, b, c = [0.0, 0.0, 20.0, 20.0], [30.0, 0.0, 60.0, 30.0], [70.0, 30.0, 90.0, 60.0]
    seen = {
        0: found((a, 0.8, "dog"), (b, 0.6, "cat")),
        4: found((b, 0.4, "cat")),  # the dog is missed once
        8: found((a, 0.6, "dog"), (b, 0.9, "dog"), (c, 0.5, "cat")),  # the cat's place, another name
    }
    finder = GroundedSam2(Boxes(seen, clip), Rigid(), every=4, most=8)
    things = finder.follower.follow(clip, finder.detector.detect(clip, ["dog", "cat"]))
    told = {(t.label, round(t.score, 3), t.seen) for t in things}
    assert told == {("dog", 0.7, 2), ("cat", 0.5, 2), ("dog", 0.9, 1), ("cat", 0.5, 1)}
    assert all(t.masks.any((1, 2)).all() for t in things)
    finder = GroundedSam2(Boxes(seen, clip), Rigid(), every=4, most=2)
    few = finder.follower.follow(clip, finder.detector.detect(clip, ["dog", "cat"]))
    assert len(few) == 2


# ---- official checkpoints ---------------------------------------------------------------------------------


def test_official_layouts_load_and_no_others(
    dino_file: tuple[Path, Path], sam2_file: Path, tmp_path: Path, clip: np.ndarray
) -> None:
    def dino(path: Path) -> GroundingDinoPackage:
        return GroundingDinoPackage(str(path), text_encoder=str(dino_file[1]), threshold=0.0, side=256)

    def sam2(path: Path) -> Sam2Package:
        return Sam2Package(str(path), "configs/sam2.1/sam2.1_hiera_t.yaml", SAM2)

    for path, make, use in (
        (dino_file[0], dino, lambda model: model.find(clip[0], ["dog"])),
        (sam2_file, sam2, lambda model: model.propagate(clip[:2], 0, BOXES)),
    ):
        use(make(path))
        held = torch.load(path, weights_only=True)
        names = list(held["model"])
        for change in ("missing", "more", "bare", "cut"):
            weights = dict(held["model"])
            if change == "missing":
                del weights[names[5]]
            if change == "more":
                weights["head.weight"] = torch.zeros(1)
            wrong = tmp_path / f"{change}.pth"
            torch.save(weights if change == "bare" else {"model": weights}, wrong)
            if change == "cut":
                wrong.write_bytes(wrong.read_bytes()[:1000])
            with pytest.raises(AssetError, match="no checkpoint of") as told:
                use(make(wrong))
            assert str(wrong) in str(told.value)


def test_stock_sam2_has_the_official_layout(tmp_path: Path) -> None:
    """The largest published model, as its configuration in the package builds it."""
    segmenter = Sam2Package(str(tmp_path / "large.pt"), "configs/sam2.1/sam2.1_hiera_l.yaml")
    weights = segmenter.build().state_dict()
    assert sum(value.numel() for value in weights.values()) > 200e6
    torch.save({"model": weights}, tmp_path / "large.pt")
    loaded = segmenter._loaded.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


# ---- generators, depth, poses -----------------------------------------------------------------------------


def test_vace_keeps_lengths_and_what_lies_outside(tiny: Callable[[str], str], clip: np.ndarray) -> None:
    vace = WanVace(tiny("wan_vace"), steps=2, longest=9)
    everything = np.ones(clip.shape[:3], bool)
    for count in (1, 4, 6, 9):
        made = vace.generate(clip[:count, :62, :90], everything[:count, :62, :90], "a ball")
        assert made.shape == (count, 62, 90, 3)
    with pytest.raises(AnnotatorError, match="18 frames, it takes at most 9"):
        vace.generate(np.concatenate([clip, clip]), np.concatenate([everything, everything]), "a ball")
    mask = np.zeros(clip.shape[:3], bool)
    mask[:, 20:40, 20:50] = True
    filled, changed = GeneratedFill(vace, grow=4, feather=3).inpaint(clip, mask, 10.0, "a ball")
    assert np.array_equal(filled[~changed], clip[~changed])
    assert changed[mask].all()
    assert not np.array_equal(filled[mask], clip[mask])
    again, _ = GeneratedFill(vace, grow=4, feather=3).inpaint(clip, mask, 10.0, "a ball")
    assert np.array_equal(filled, again)


def test_vace_samples_as_its_authors_do(tiny: Callable[[str], str], clip: np.ndarray) -> None:
    """Noise levels within 0.01 of those of FlowUniPCMultistepScheduler.set_timesteps, shift 16.

    diffusers starts at 1 and ends at 1/1000 before the shift, the authors start at 0.999 and end at 0.
    """
    steps, shift = 50, 16.0
    levels = np.linspace(1 - 1 / 1000, 0, steps + 1)[:-1]
    levels = shift * levels / (1 + (shift - 1) * levels)
    scheduler = scheduler_of(shift)
    scheduler.set_timesteps(steps)
    assert np.allclose(scheduler.sigmas, [*levels, 0], atol=0.01)
    assert not np.allclose(
        scheduler.sigmas, [*np.linspace(1, 0.02, steps), 0], atol=0.2
    )  # shift 1 is far off
    saved = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    checkpoint = UniPCMultistepScheduler(**saved).config
    differing = {name for name in checkpoint if checkpoint[name] != scheduler.config[name]}
    assert differing - {"_use_default_values"} == {"flow_shift"}

    everything = np.ones(clip[:1].shape[:3], bool)

    def drawn(call: int, **settings: Any) -> np.ndarray:
        vace = WanVace(tiny("wan_vace"), steps=2, **settings)
        return vace.generate(clip[:1], everything, "a ball", call)

    first = drawn(3)
    assert np.array_equal(first, drawn(2, seed=1))  # the setting's and the call's are added
    assert not np.array_equal(first, drawn(4))
    low = drawn(3, shift=3.0)
    assert not np.array_equal(first, low)
    assert np.array_equal(drawn(3, shift=None), low)  # the checkpoint's own
    described = {WanVace(tiny("wan_vace"), shift=s).describe().settings["shift"] for s in (16.0, 3.0, None)}
    assert len(described) == 3


def test_the_generator_never_sees_the_object(clip: np.ndarray) -> None:
    class Sees:
        def describe(self) -> Backend:
            return Backend("sees")

        def generate(self, control: np.ndarray, mask: np.ndarray, prompt: str, seed: int = 0) -> np.ndarray:
            self.control, self.mask, self.seed = control, mask, seed
            return np.full_like(control, 240)

    mask = np.zeros(clip.shape[:3], bool)
    mask[:, 20:40, 20:50] = True
    grey, generator = np.full_like(clip, 90), Sees()
    filled, changed = GeneratedFill(generator, grow=6, feather=5).inpaint(grey, mask, 10.0, "a ball", 7)
    assert (generator.control[generator.mask] == 127).all()
    assert generator.seed == 7
    assert np.array_equal(changed, generator.mask)
    assert (filled[mask] == 240).all()  # nothing of the old object is mixed in
    assert (filled[~changed] == 90).all()
    # over the rim it fades out: no step is larger than a fifth, and what is returned as changed has changed
    assert np.abs(np.diff(filled[0, :, 35, 0].astype(int))).max() == 30
    assert (filled[changed] > 90).all()
    for grow, feather in ((4, 4), (0, 1), (4, -1)):
        with pytest.raises(SettingError, match=f"feather: {feather} pixels"):
            GeneratedFill(generator, grow, feather)


def test_an_edited_picture_keeps_its_size(tiny: Callable[[str], str], clip: np.ndarray) -> None:
    options = {"guidance_scale": 2.5, "max_area": 64 * 96, "_auto_resize": False}
    editor = DiffusersEditor(tiny("image_editor"), steps=2, options=options)
    picture = editor.edit(clip[0, :62, :90], "Make it blue.", seed=1)
    assert picture.shape == (62, 90, 3)
    assert picture.std() > 0
    assert np.array_equal(picture, editor.edit(clip[0, :62, :90], "Make it blue.", seed=1))
    assert not np.array_equal(picture, editor.edit(clip[0, :62, :90], "Make it blue.", seed=2))
    other = DiffusersEditor(tiny("image_editor"), steps=1, size=(32, 48), options=options)
    with pytest.raises(AnnotatorError, match="drew 96x64 and was asked for 48x32"):
        other.edit(clip[0], "Make it blue.")


@pytest.mark.slow
def test_qwen_image_edit_draws_on_the_grid_that_it_sees(tiny: Callable[[str], str]) -> None:
    """Of the picture and of what is drawn, the transformer gets latents of one size."""
    options = {"true_cfg_scale": 4.0, "negative_prompt": " "}
    editor = DiffusersEditor(tiny("qwen_image_edit"), steps=1, options=options)
    grids: list[Any] = []
    editor._loaded.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: grids.append(kwargs["img_shapes"][0]), with_kwargs=True
    )
    picture = np.random.default_rng(0).integers(0, 256, (468, 832, 3), dtype=np.uint8)
    assert editor.edit(picture, "Make it blue.").shape == picture.shape
    assert grids == [[(1, 48, 86), (1, 48, 86)]] * 2  # with and without the instruction


@pytest.mark.parametrize("shape", [(468, 832), (480, 832), (832, 468), (480, 640), (360, 480), (512, 512)])
def test_an_edited_picture_stays_where_it_was(shape: tuple[int, int]) -> None:
    """A pipeline sees and draws its canvas at one size, the picture fills nearly all of it, unstretched."""
    shares = {"QwenImageEditPlusPipeline": 0.98, "FluxKontextPipeline": 0.9, "OtherPipeline": 0.96}
    for name, smallest in shares.items():
        pipe = type(name, (), {"vae_scale_factor": 8})()
        size = drawing_size(pipe, shape, {})
        ratio = size[1] / size[0]
        if name.startswith("Qwen"):
            width, height = qwen_edit_plus.calculate_dimensions(qwen_edit_plus.VAE_IMAGE_SIZE, ratio)
            assert size == (height, width) == tuple(side // 16 * 16 for side in (height, width))
        if name.startswith("Flux"):
            closest = min(kontext.PREFERRED_KONTEXT_RESOLUTIONS, key=lambda wh: abs(ratio - wh[0] / wh[1]))
            drawn = [round((1024**2 / ratio) ** 0.5), round((1024**2 * ratio) ** 0.5)]
            assert size == closest[::-1] == tuple(side // 16 * 16 for side in drawn)
        image = np.zeros((*shape, 3), np.uint8)
        image[shape[0] // 4, :] = image[:, shape[1] // 3] = 255
        placed = place(image, size)
        assert placed.height * placed.width / (size[0] * size[1]) > smallest
        back = placed.restore(placed.canvas)
        assert back.shape == image.shape
        for axis, line in ((1, shape[0] // 4), (0, shape[1] // 3)):
            assert np.argmax(back[..., 0].mean(axis)) == line


def test_depth_has_one_scale_for_the_clip(tiny: Callable[[str], str], clip: np.ndarray) -> None:
    inverse = DepthAnything(tiny("depth_anything"), batch=4).inverse_depth(clip)
    assert inverse.shape == (9, 64, 96)
    alone = DepthAnything(tiny("depth_anything"), batch=9).inverse_depth(clip)
    assert np.allclose(inverse, alone, atol=1e-4)
    grey = grey_video(inverse)[..., 0].astype(float)
    order = np.argsort(inverse.ravel())
    assert (np.diff(grey.ravel()[order]) >= 0).all()  # equal depth is equally bright in every frame


def test_nobody_is_no_person(tiny: Callable[[str], str], clip: np.ndarray) -> None:
    detector = GroundingDino(tiny("grounding_dino"), threshold=0.0)
    poses = RtmPose(detector, tiny("rtmpose"), (48, 64), most=2)
    people = poses.poses(clip[0], poses.people.people(clip[0]))
    assert people.shape == (2, 17, 3)
    assert ((people[..., 2] >= 0) & (people[..., 2] <= 1)).all()
    nobody = GroundingDino(tiny("grounding_dino"), threshold=1.1)
    poses = RtmPose(nobody, tiny("rtmpose"), (48, 64))
    assert poses.poses(clip[0], poses.people.people(clip[0])).shape == (0, 17, 3)


def test_rtmpose_sees_red_where_it_was_trained_to(tiny: Callable[[str], str]) -> None:
    """The first of the network's channels is red, with red's mean, as mmpose's `bgr_to_rgb=True` has it."""
    import onnxruntime

    colour, box = np.array([200, 30, 90]), np.array([[40, 40, 58, 64]], np.float32)
    frame = np.broadcast_to(colour.astype(np.uint8), (128, 128, 3)).copy()
    path = tiny("rtmpose")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    pixel = (colour - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    picture = np.broadcast_to(pixel[:, None, None], (1, 3, 64, 48)).astype(np.float32)
    across = session.run(["simcc_x"], {"input": picture})[0][0].argmax(-1) / 2
    expected = across / 48 * 18 * 1.25 + 49 - 18 * 1.25 / 2
    detector = GroundingDino(tiny("grounding_dino"))
    assert RtmPose(detector, path, (48, 64)).poses(frame, box)[0, :, 0] == pytest.approx(expected, abs=1e-3)
    other = RtmPose(detector, path, (48, 64), channels="bgr")
    swapped = other.poses(np.ascontiguousarray(frame[..., ::-1]), box)
    assert swapped[0, :, 0] == pytest.approx(expected, abs=1e-3)
    assert other.poses(frame, box)[0, :, 0] != pytest.approx(expected, abs=1)


def test_rtmpose_says_what_it_runs_on(
    tiny: Callable[[str], str], clip: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = GroundingDino(tiny("grounding_dino"))
    RtmPose(detector, tiny("rtmpose"), (48, 64)).poses(clip[0], BOXES)
    said = capsys.readouterr()
    assert not said.out
    assert "RTMPose: runs on onnxruntime's CPUExecutionProvider" in said.err
    with pytest.raises(AssetError, match=r"onnxruntime-gpu .* or set device: cpu"):
        RtmPose(detector, tiny("rtmpose"), (48, 64), device="cuda").poses(clip[0], BOXES)


# ---- what is missing --------------------------------------------------------------------------------------


def test_missing_checkpoints_are_named_with_their_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for annotator, model, license in (
        (GroundingDino(str(tmp_path)), "Grounding DINO", "Apache-2.0"),
        (Sam2Hub(str(tmp_path / "none")), "SAM 2", "Apache-2.0"),
        (Sam3Tracker("facebook/sam3"), "SAM 3", "SAM License"),
        (Sam3("facebook/sam3").follower, "SAM 3", "SAM License"),
        (DepthAnything("depth-anything/not-here"), "Depth Anything V2", "CC-BY-NC"),
        (WanVace("./here"), "Wan VACE", "Apache-2.0"),
        (DiffusersEditor("some/where"), "an image editor", "non-commercial"),
        (Sam2Package(str(tmp_path / "sam2.pt")), "SAM 2", "Apache-2.0"),
    ):
        with pytest.raises(AssetError, match=f"no checkpoint of {model}") as told:
            annotator.describe()
        assert license in str(told.value)
        assert len(str(told.value).splitlines()) == 1


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, annotator in (
        ("rtmlib", RtmPose(GroundingDino(str(tmp_path)), "x.onnx")),
        ("sam2", Sam2Package("x.pt")),
        ("groundingdino", GroundingDinoPackage("x.pth")),
    ):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(AssetError, match=f"{name}: the package is not installed"):
            annotator.describe()
