"""Stands in for ProPainter in DiffuEraser's repository: its files and demands, OpenCV's fill."""

import os

import cv2
import numpy as np
from failing import at_import, at_work

at_import()


def get_device() -> str:
    return "cpu"


class Propainter:
    def __init__(self, propainter_model_dir: str, device: str) -> None:
        for name in ("raft-things.pth", "recurrent_flow_completion.pth", "ProPainter.pth"):
            assert os.path.isfile(os.path.join(propainter_model_dir, name)), name  # noqa: PTH113, PTH118

    def forward(
        self,
        video: str,
        mask: str,
        output_path: str,
        resize_ratio: float = 0.6,
        video_length: int = 2,
        mask_dilation: int = 4,
        ref_stride: int = 10,
        neighbor_length: int = 10,
        subvideo_length: int = 80,
    ) -> None:
        from diffueraser.diffueraser import frames_of, opened

        at_work()
        frames, fps = frames_of(video, video_length)
        longer = max(frames[0].shape[:2])
        resize_ratio *= min(1.0, 960 / longer)
        height, width = (int(resize_ratio * side) for side in frames[0].shape[:2])
        _, holes = opened(mask)
        # the rate is what OpenCV writes for it, and so reads: 29.97 for 30000/1001
        writer = cv2.VideoWriter(output_path, cv2.VideoWriter_fourcc(*"mp4v"), fps, (width, height))
        for frame, hole in zip(frames, holes, strict=False):
            size = (width - width % 8, height - height % 8)
            where = cv2.resize(hole[..., 0], size, interpolation=cv2.INTER_NEAREST)
            where = cv2.dilate(
                where, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)), iterations=mask_dilation
            )
            filled = cv2.inpaint(
                cv2.resize(frame, size), np.where(where > 0, 1, 0).astype(np.uint8), 3, cv2.INPAINT_TELEA
            )
            writer.write(cv2.resize(filled, (width, height))[..., ::-1])
        writer.release()
