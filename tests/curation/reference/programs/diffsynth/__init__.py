"""Stands in for the package of ReCamMaster's repository: its pipeline moves the picture sideways."""

import os

import cv2
import numpy as np
from failing import FAIL, at_import, at_work, shape

at_import()


class WanVideoReCamMasterPipeline:
    def __init__(self) -> None:
        with open("loads.txt", "a") as file:  # noqa: PTH123  # how often, for the tests
            file.write(f"{os.getpid()}\n")

    def __call__(
        self, prompt: list, source_video: np.ndarray, target_camera: int, seed: int, **options: object
    ) -> list:
        at_work()
        assert all(prompt)
        step = int(target_camera[0])
        moved = [np.roll(frame, step * t, axis=1) for t, frame in enumerate(source_video[0].numpy())]
        return [np.clip(frame.astype(int) + seed % 3, 0, 255).astype(np.uint8) for frame in moved]


def save_video(frames: list, save_path: str, fps: float, quality: int = 9) -> None:
    frames, rate = shape(frames, fps)
    if FAIL == "nothing":
        return
    writer = cv2.VideoWriter(save_path, cv2.VideoWriter_fourcc(*"mp4v"), rate, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()
