"""Stands in for DiffuEraser: it reads, checks, blends and writes as the program does; its fill is the prior.

SHIFT in the environment is added to the fill, in levels. FAIL: see `failing`.
"""

import os

import av
import cv2
import numpy as np
from failing import FAIL, shape

RATES = "The frame rate of all input videos needs to be consistent."


def frames_of(path: str, seconds: float) -> tuple[list, float]:
    """As torchvision.io.read_video gives them: RGB, up to a time, and the container's average rate."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate)
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream) if f.time <= seconds]
    return frames, fps


def opened(path: str) -> tuple[float, list]:
    """All frames as OpenCV gives them, and its rate."""
    capture, frames = cv2.VideoCapture(path), []
    if not capture.isOpened():
        print("Error: Could not open video.")
        raise SystemExit
    while True:
        more, frame = capture.read()
        if not more:
            return capture.get(cv2.CAP_PROP_FPS), frames
        frames.append(frame)


class DiffuEraser:
    def __init__(
        self, device: str, base_model_path: str, vae_path: str, diffueraser_path: str, ckpt: str
    ) -> None:
        assert ckpt == "2-Step"
        for folder in (base_model_path, vae_path, diffueraser_path, "weights/PCM_Weights/sd15"):
            assert os.path.isdir(folder), folder  # noqa: PTH112
        with open("loads.txt", "a") as file:  # noqa: PTH123  # how often, for the tests
            file.write(f"{os.getpid()}\n")

    def forward(
        self,
        validation_image: str,
        validation_mask: str,
        priori: str,
        output_path: str,
        max_img_size: int = 1280,
        video_length: int = 2,
        mask_dilation_iter: int = 4,
        nframes: int = 22,
        seed: "int | None" = None,
        guidance_scale: "float | None" = None,
    ) -> str:
        if max_img_size < 256 or max_img_size > 1920:
            raise ValueError("The max_img_size must be larger than 256, smaller than 1920.")
        frames, fps = frames_of(validation_image, video_length)
        frames = frames[: int(video_length * fps)]
        longer = max(frames[0].shape[:2])
        if longer < 256:
            raise ValueError("The resolution of the uploaded video must be larger than 256x256.")
        if longer > 4096:
            raise ValueError("The resolution of the uploaded video must be smaller than 4096x4096.")
        ratio = max(1.0, longer / max_img_size)
        height, width = (int(side / ratio) - int(side / ratio) % 8 for side in frames[0].shape[:2])
        frames = [cv2.resize(frame, (width, height)) for frame in frames]
        mask_fps, masks = opened(validation_mask)
        if mask_fps != fps:
            raise ValueError(RATES)
        assert set(np.unique(masks)) <= {0, 255}, "the mask rings"
        prior_fps, priors = opened(priori)
        if prior_fps != fps:
            raise ValueError(RATES)
        os.remove(priori)  # noqa: PTH107
        count = min(len(frames), len(masks), len(priors))
        if count < 22:
            raise ValueError("The effective video duration is too short.")
        square, out = np.ones((3, 3), np.uint8), []
        for frame, mask, prior in zip(frames[:count], masks, priors, strict=False):
            mask = cv2.resize(mask[..., 0], (width, height), interpolation=cv2.INTER_NEAREST)
            mask = (
                cv2.dilate(cv2.erode((mask > 0) * np.uint8(1), square), square, iterations=mask_dilation_iter)
                * 255
            )
            soft = 1 - (1 - mask / 255) * (1 - cv2.GaussianBlur(mask, (21, 21), 0) / 255)
            part = (soft * 255).astype(np.uint8)[..., None] / 255
            fill = cv2.resize(prior, (width, height))[..., ::-1] + float(os.environ.get("SHIFT", "0"))
            fill = fill + (seed or 0) % 3
            out.append((fill.clip(0, 255) * part + frame * (1 - part)).astype(np.uint8))
        out, rate = shape(out, fps)
        if FAIL == "garbage":
            with open(output_path, "wb") as handle:  # noqa: PTH123
                handle.write(b"no video" * 100)
        elif FAIL != "nothing":
            size = out[0].shape[1::-1]
            writer = cv2.VideoWriter(output_path, cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
            for frame in out:
                writer.write(frame[..., ::-1])
            writer.release()
        return output_path
