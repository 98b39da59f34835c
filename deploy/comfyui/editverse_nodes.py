"""EditVerse for ComfyUI: edits a batch of frames, or a picture, by a service (`python -m model serve`).

Copy this file into ComfyUI's folder `custom_nodes`. It needs nothing that ComfyUI has not. Where the service
is and the token that it wants are said by the environment of ComfyUI's process, and not by a node: workflows
are passed on, and are stored in the pictures that they make.

    EDITVERSE_SERVER   http://127.0.0.1:8000 where not given
    EDITVERSE_TOKEN    a token of `python -m model token`, where the service wants one
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
import time
import urllib.error
import urllib.request
from fractions import Fraction

import av
import numpy as np
import torch
from PIL import Image

SERVER = "http://127.0.0.1:8000"
LOOK = 0.5  # seconds between two questions whether an edit is done
ANSWER = 120  # seconds that the service may take to answer
TAG = re.compile(r"<(?:video|image|mask)\d*>")


class ServiceError(RuntimeError):
    """What the service said, in one line."""


class EditVerseEdit:
    """The node: frames and an instruction in, edited frames out."""

    CATEGORY = "EditVerse"
    FUNCTION = "edit"
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("images", "about")
    DESCRIPTION = "Edits frames by an instruction. A batch of one frame is a picture."

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        """The node's inputs, as ComfyUI asks for them."""
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "frames of the video, or one picture"}),
                "text": (
                    "STRING",
                    {
                        "multiline": True,
                        "default": "Make it night.",
                        "tooltip": "tags are <video1> (or <image1> for one picture), <mask>, and for the "
                        "reference <image1> (<image2> for one picture); without tags they are put before it",
                    },
                ),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1}),
                "steps": ("INT", {"default": 0, "min": 0, "max": 1000, "tooltip": "0 is the model's own"}),
                "guidance": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": 0.0,
                        "max": 100.0,
                        "step": 0.1,
                        "tooltip": "0 is the model's own",
                    },
                ),
                "fps": ("FLOAT", {"default": 16.0, "min": 1.0, "max": 240.0, "step": 0.01}),
                "ground": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "find the region that the words are about first"},
                ),
            },
            "optional": {
                "mask": ("MASK", {"tooltip": "white where to edit: one for all frames, or one for each"}),
                "reference": ("IMAGE", {"tooltip": "a picture that the text speaks of"}),
            },
        }

    def edit(
        self,
        images: torch.Tensor,
        text: str,
        seed: int = 0,
        steps: int = 0,
        guidance: float = 0.0,
        fps: float = 16.0,
        ground: bool = False,
        mask: torch.Tensor | None = None,
        reference: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, str]:
        """Have the service make an edit.

        Args:
            images: float [T, H, W, 3] in [0, 1].
            text: instruction.
            seed: of the noise.
            steps, guidance: the model's own where 0.
            fps: of the frames; it matters to models that were trained on several rates.
            ground: see `Editor.__call__`.
            mask: float [T, H, W] or [1, H, W] in [0, 1].
            reference: float [1, H, W, 3] in [0, 1].

        Returns:
            float [T, H, W, 3] in [0, 1], and what the service says of the edit.

        Raises:
            ServiceError: the service cannot be reached, or refuses, in its words.
        """
        frames = to_bytes(images)
        name = "video1" if len(frames) > 1 else "image1"
        files = {name: encode_video(frames, fps) if len(frames) > 1 else encode_picture(frames[0])}
        if mask is not None:
            marks = to_bytes(mask.reshape(-1, *mask.shape[-2:]))
            if len(marks) == 1 and len(frames) > 1:
                marks = np.repeat(marks, len(frames), axis=0)
            files["mask"] = encode_video(marks, fps) if len(frames) > 1 else encode_picture(marks[0])
        if reference is not None:
            files["image1" if name == "video1" else "image2"] = encode_picture(to_bytes(reference)[0])
        if not TAG.search(text):
            text = " ".join([*(f"<{tag}>" for tag in files), text])
        settings = {"seed": seed, "ground": ground}
        settings |= {"steps": steps} if steps else {}
        settings |= {"guidance": guidance} if guidance else {}
        status = wait_for(submit(text, files, settings))
        content = ask("GET", status["result"])
        edited = decode_video(content) if name == "video1" else decode_picture(content)
        return torch.from_numpy(edited.astype(np.float32) / 255), status["detail"]


NODE_CLASS_MAPPINGS = {"EditVerseEdit": EditVerseEdit}
NODE_DISPLAY_NAME_MAPPINGS = {"EditVerseEdit": "EditVerse: edit"}


# The service.


def ask(method: str, path: str, body: bytes | None = None, kind: str = "") -> bytes:
    """The body of an answer; ServiceError with the service's own line where it refuses."""
    server = os.environ.get("EDITVERSE_SERVER", SERVER).rstrip("/")
    headers = {"Content-Type": kind} if kind else {}
    if token := os.environ.get("EDITVERSE_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(server + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        try:
            line = json.loads(error.read())["detail"]
        except (ValueError, KeyError, TypeError):
            line = error.reason
        raise ServiceError(f"EditVerse: {line}") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ServiceError(
            f"EditVerse: {server} does not answer ({reason}); start `python -m model serve`, or set "
            "EDITVERSE_SERVER"
        ) from None


def submit(text: str, files: dict[str, tuple[str, bytes]], settings: dict) -> dict:
    """Submit an edit; its status."""
    boundary = secrets.token_hex(16)
    fields = [("text", "", text.encode()), ("settings", "", json.dumps(settings).encode())]
    fields += [(name, f'; filename="{file}"', content) for name, (file, content) in files.items()]
    body = io.BytesIO()
    for name, more, content in fields:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
        body.write(head.encode() + content + b"\r\n")
    body.write(f"--{boundary}--\r\n".encode())
    kind = f"multipart/form-data; boundary={boundary}"
    return json.loads(ask("POST", "/v1/edits", body.getvalue(), kind))


def wait_for(status: dict) -> dict:
    """Wait until an edit is done, showing ComfyUI's bar; one that is interrupted there is cancelled.

    Raises:
        ServiceError: it has failed, or was cancelled at the service.
    """
    path = f"/v1/edits/{status['id']}"
    bar = None
    try:
        while status["state"] in ("queued", "running"):
            time.sleep(LOOK)
            check_interrupted()
            status = json.loads(ask("GET", path))
            if status["steps_total"]:
                bar = bar or progress_bar(status["steps_total"])
                bar.update_absolute(status["steps_done"], status["steps_total"])
    except BaseException:  # Cancel was pressed, or the service is gone
        with contextlib.suppress(ServiceError):
            ask("DELETE", path)
        raise
    if status["state"] != "done":
        raise ServiceError(f"EditVerse: {status['detail'] or status['state']}")
    return status


def check_interrupted() -> None:
    """Raise ComfyUI's exception if Cancel was pressed there."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
    except ImportError:  # not inside of ComfyUI
        return
    throw_exception_if_processing_interrupted()


def progress_bar(total: int):
    """ComfyUI's bar for a node, or outside of ComfyUI one that nobody sees."""
    try:
        from comfy.utils import ProgressBar
    except ImportError:
        return _NoBar()
    return ProgressBar(total)


class _NoBar:
    def update_absolute(self, value: int, total: int) -> None:
        """Show nothing."""


# Pixels.


def to_bytes(pixels: torch.Tensor) -> np.ndarray:
    """Float in [0, 1] as uint8 in the same shape; what exceeds the range is cut off."""
    return (pixels.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def encode_video(frames: np.ndarray, fps: float) -> tuple[str, bytes]:
    """uint8 [T, H, W, 3], or [T, H, W] for masks, as lossless FFV1; a file's name and its bytes."""
    grey = frames.ndim == 3
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "gray" if grey else "bgr0"
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "gray" if grey else "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return "frames.mkv", file.getvalue()


def decode_video(content: bytes) -> np.ndarray:
    """The frames of a video file, uint8 [T, H, W, 3]."""
    with av.open(io.BytesIO(content)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def encode_picture(picture: np.ndarray) -> tuple[str, bytes]:
    """uint8 [H, W, 3] or [H, W] as PNG; a file's name and its bytes."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return "picture.png", file.getvalue()


def decode_picture(content: bytes) -> np.ndarray:
    """A picture's pixels, uint8 [1, H, W, 3]."""
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))[None]
