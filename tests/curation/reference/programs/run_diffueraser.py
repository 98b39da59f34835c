"""Stands in for DiffuEraser's program: the same command line, files and demands; fills the hole with its rim.

FAIL in the environment makes it crash, hang, or write nothing or something wrong.
"""

import argparse
import os
import sys
import time

import cv2
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("--input_video", type=str, default="examples/example3/video.mp4")
parser.add_argument("--input_mask", type=str, default="examples/example3/mask.mp4")
parser.add_argument("--video_length", type=int, default=10)
parser.add_argument("--mask_dilation_iter", type=int, default=8)
parser.add_argument("--max_img_size", type=int, default=960)
parser.add_argument("--save_path", type=str, default="results")
parser.add_argument("--ref_stride", type=int, default=10)
parser.add_argument("--neighbor_length", type=int, default=10)
parser.add_argument("--subvideo_length", type=int, default=50)
parser.add_argument("--base_model_path", type=str, default="weights/stable-diffusion-v1-5")
parser.add_argument("--vae_path", type=str, default="weights/sd-vae-ft-mse")
parser.add_argument("--diffueraser_path", type=str, default="weights/diffuEraser")
parser.add_argument("--propainter_model_dir", type=str, default="weights/propainter")
args = parser.parse_args()
fail = os.environ.get("FAIL", "")


def read(path: str) -> tuple[float, np.ndarray]:
    capture, frames = cv2.VideoCapture(path), []
    while True:
        more, frame = capture.read()
        if not more:
            return capture.get(cv2.CAP_PROP_FPS), np.stack(frames)
        frames.append(frame)


(fps, video), (mask_fps, mask) = read(args.input_video), read(args.input_mask)
if fps != mask_fps:
    raise ValueError("The frame rate of all input videos needs to be consistent.")
if not 256 < args.max_img_size <= 1920:
    raise ValueError("The max_img_size must be larger than 256, smaller than 1920.")
count = min(int(args.video_length * fps), len(video))
if count < 22:
    raise ValueError("The effective video duration is too short.")
hole = mask.max(-1) > 0
assert set(np.unique(mask)) <= {0, 255}, "the mask rings"
if fail == "crash":
    sys.exit("RuntimeError: CUDA out of memory")
if fail == "hang":
    print("loading", flush=True)
    time.sleep(600)
os.makedirs(args.save_path, exist_ok=True)  # noqa: PTH103
size = (video.shape[2] // 8 * 8, video.shape[1] // 8 * 8)
if fail == "size":
    size = (size[0] // 2, size[1] // 2)
path = os.path.join(args.save_path, "diffueraser_result.mp4")  # noqa: PTH118
if fail == "garbage":
    with open(path, "wb") as handle:  # noqa: PTH123
        handle.write(b"no video" * 100)
    sys.exit()
if fail != "nothing":
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    for frame, where in list(zip(video, hole, strict=True))[: count // 2 if fail == "count" else count]:
        filled = cv2.inpaint(frame, where.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        writer.write(cv2.resize(filled, size))
    writer.release()
