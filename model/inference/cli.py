"""`python -m model edit`: a request as options, checked before anything heavy, and its result as a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from model.acceleration.config import NO_SHORTCUTS, Shortcuts
from model.encoders.wan import WanVAE
from model.inference.editor import Editor
from model.inference.enhance import find_enhancer
from model.inference.instruction import Instruction, check_instruction
from model.net.distributed import exit_rank, init_distributed
from shards.devices import choose_device
from shards.errors import SettingError
from shards.files import write_json
from shards.help_pages import help_page


@help_page(
    sections={
        "media": ("files that the text speaks of", ("video2", "image1", "image2", "mask", "media")),
        "sampling": (
            "how the result is made",
            (
                "steps",
                "guidance",
                "video_guidance",
                "image_guidance",
                "negative",
                "interval",
                "solver",
                "seed",
            ),
        ),
        "faithfulness": ("what of the source stays", ("keep", "keep_faces", "carry", "ground")),
        "enhancement": ("a language model that rewrites the text", ("enhance", "enhance_model")),
        "weights": (
            "what of the model is loaded, and how",
            ("lora", "dtype", "revision", "offload", "vae_tiling"),
        ),
    }
)
def edit(
    checkpoint: str,
    text: str,
    out: Path,
    video1: str | None = None,
    video2: str | None = None,
    image1: str | None = None,
    image2: str | None = None,
    mask: str | None = None,
    media: dict[str, str] = {},  # noqa: B006 (never changed)
    size: tuple[int, int] | None = None,
    frames: str | int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    video_guidance: float | None = None,
    image_guidance: float | None = None,
    negative: str | None = None,
    interval: tuple[float, float] | None = None,
    solver: str | None = None,
    seed: int = 0,
    carry: bool | None = None,
    keep: float | None = None,
    keep_faces: bool | None = None,
    ground: bool = False,
    lora: Path | None = None,
    device: str = "auto",
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    revision: str | None = None,
    offload: bool = False,
    vae_tiling: Literal["auto", "on", "off"] = "auto",
    enhance: str | None = None,
    enhance_model: str | None = None,
    shortcuts: Shortcuts = NO_SHORTCUTS,
) -> int:
    """Edit or generate a video or image by an instruction.

    A long video is edited window by window in constant memory. Windows that are finished are kept in
    <out>.parts until the file is written: the same command goes on from them if it was interrupted.

    Args:
        checkpoint: folder with config.json and model.safetensors, a finished run's folder, or a hub id.
        text: e.g. "<video1> Remove the dog."; `python -m model forms` lists more.
        out: the mp4 (or png) to write.
        video1: file that <video1> stands for.
        video2: file that <video2> stands for.
        image1: file that <image1> stands for.
        image2: file that <image2> stands for.
        mask: file that <mask> stands for.
        media: more files by name, as JSON: {"video3": "in.mp4"}.
        size: height and width of the result; the source's when not given.
        frames: length of the result, 1 + 4 k for published weights; the source's when not given. 10:250 takes
            frames 10 to 249 of the first video.
        steps: solver steps; the checkpoint's default when not given.
        guidance: scale of the text guidance, 1 is none.
        video_guidance: scale of guidance on the source videos apart from the text, 1 is none.
        image_guidance: the same on the source images.
        negative: what the result should not be like, for published weights; "" is none.
        interval: first and last time, of 0 (noise) to 1, at which there is guidance; all when not given.
        solver: euler, midpoint, unipc, or unipc_wan for published weights.
        seed: of the noise.
        carry: detail carry-over on or off.
        keep: how much of the source is kept outside of the edit, 0 to 1; 1 is to the bit, before encoding.
            The mask that was used is written beside the result, as out.mask.mkv (of images .mask.png).
        keep_faces: keep all faces of the source, or none; by default those that the edit is not about.
        ground: find the region that the words are about first, then edit within it.
        lora: an adapter to merge into the weights: its folder, its run's, a LoRA file, or a hub id.
        device: of the model: auto, cpu or cuda.
        dtype: of the model's weights; the file's when not given, for published ones the device's own.
        revision: branch, tag or commit of a hub id.
        offload: have encoders and transformer on the device one at a time, for a small card.
        vae_tiling: have Wan's VAE work in tiles of 256 pixels; auto does where memory would not suffice.
        enhance: folder or hub id of a Qwen-VL, or URL of an OpenAI-compatible endpoint up to /v1, to rewrite
            the text in detail; both texts are then saved beside the result, as .json. Off by default.
        enhance_model: the model's name at that endpoint.
        shortcuts: what of the network's work is left out; docs/performance.md has what each gains and loses.
    """
    files = _given_files(media, video1=video1, video2=video2, image1=image1, image2=image2, mask=mask)
    instruction = check_instruction(text, files)
    _check_suffix(out, instruction)
    taken = _read_frames(frames)
    if enhance is None and enhance_model is not None:
        raise SettingError(f"--enhance_model {enhance_model}: needs --enhance, the URL of its endpoint")
    enhancer = find_enhancer(enhance, enhance_model) if enhance is not None else None
    wanted = {"size": size, "frames": taken, "ground": ground, "enhance": enhancer}
    faithful = {"carry": carry, "keep": keep, "keep_faces": keep_faces}
    scales = {"guidance": guidance, "video_guidance": video_guidance, "image_guidance": image_guidance}
    sampling = {
        "steps": steps,
        "solver": solver,
        "seed": seed,
        "negative": negative,
        "interval": interval,
        **scales,
    }
    asked: dict[str, Any] = {**wanted, **faithful, **sampling, "shortcuts": shortcuts, **files}
    # nothing heavy happens before the request is known to be right
    with init_distributed(device) as world:
        alone = world.world_size == 1
        place = choose_device(device) if alone else world.device(device)
        editor = Editor.from_pretrained(checkpoint, place, dtype, revision, lora, offload)
        if vae_tiling != "auto" and isinstance(editor.vae, WanVAE):
            editor.vae.tiling = vae_tiling == "on"
        editor.share(world)
        if not world.is_main_process:
            _help_edit(editor, instruction, asked)
        elif instruction.makes_image:
            result = editor(instruction, **asked, progress=True)
            sound, words, rewritten = result.write(out), result.describe(), result.rewritten
        else:
            with editor.stream(instruction, out=out, **asked, progress=True, announce=print) as stream:
                if stream.restored:
                    print(f"{out}.parts: {stream.restored} of {stream.total} windows are finished, going on")
                sound, words, rewritten = stream.write(out), stream.describe(), stream.plan.rewritten
    if not world.is_main_process:
        return exit_rank(0)
    if rewritten is not None:
        write_json(out.with_suffix(".json"), {"text": instruction.text, "rewritten": rewritten})
        print(f"{out.with_suffix('.json')}: {rewritten}")
    print(" · ".join(filter(None, (f"{out}: {words}", sound))))
    return exit_rank(0)


def _help_edit(editor: Editor, instruction: Instruction, asked: dict[str, Any]) -> None:
    """Take part in an edit whose result the first process writes."""
    if instruction.makes_image:
        editor(instruction, **asked)
        return
    with editor.stream(instruction, **asked) as stream:
        for _ in stream:
            pass


def _given_files(media: dict[str, str], **named: str | None) -> dict[str, str]:
    """The files of an edit by the names in its text; `media` has those that no option of its own brings."""
    return {name: path for name, path in named.items() if path is not None} | media


def _read_frames(frames: str | int | None) -> int | tuple[int, int] | None:
    """A length, or the numbers of a stretch such as 10:250; SettingError for anything else."""
    if frames is None or isinstance(frames, int):
        return frames
    if re.fullmatch(r"[0-9]{1,9}", frames):
        return int(frames)
    found = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", frames)
    if found is None:
        raise SettingError(f"--frames {frames}: needs a number, or a stretch such as 10:250")
    return int(found[1]), int(found[2])


def _check_suffix(out: Path, instruction: Instruction) -> None:
    """Raise SettingError unless the file to write is of the kind that the edit makes."""
    suffix = ".png" if instruction.makes_image else ".mp4"
    if out.suffix.lower() != suffix:
        raise SettingError(f"--out {out}: the result <{instruction.target}> must end in {suffix}")
