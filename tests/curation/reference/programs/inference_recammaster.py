"""Stands in for ReCamMaster's program: the same command line, files and demands; moves the picture sideways.

FRAMES and SIZE in the environment replace its 81 frames of 480x832.
"""

import argparse
import csv
import os

import cv2
import numpy as np

parser = argparse.ArgumentParser(description="ReCamMaster Inference")
parser.add_argument("--dataset_path", type=str, default="./example_test_data")
parser.add_argument("--ckpt_path", type=str, default="./models/ReCamMaster/checkpoints/step20000.ckpt")
parser.add_argument("--output_dir", type=str, default="./results")
parser.add_argument("--dataloader_num_workers", type=int, default=1)
parser.add_argument("--cam_type", type=str, default=1)
parser.add_argument("--cfg_scale", type=float, default=5.0)
args = parser.parse_args()
length = int(os.environ.get("FRAMES", "81"))
height, width = (int(side) for side in os.environ.get("SIZE", "480x832").split("x"))
folder = os.path.join(args.output_dir, f"cam_type{args.cam_type}")  # noqa: PTH118
os.makedirs(folder, exist_ok=True)  # noqa: PTH103
with open(os.path.join(args.dataset_path, "metadata.csv")) as handle:  # noqa: PTH118, PTH123
    rows = list(csv.DictReader(handle))
for number, row in enumerate(rows):
    assert row["text"]
    path = os.path.join(args.dataset_path, "videos", row["file_name"])  # noqa: PTH118
    capture, frames = cv2.VideoCapture(path), []
    while len(frames) < length:
        more, frame = capture.read()
        if not more:
            raise ValueError(f"{path} is not a valid video.")
        frames.append(cv2.resize(frame, (width, height)))
    out = os.path.join(folder, f"video{number}.mp4")  # noqa: PTH118
    writer = cv2.VideoWriter(out, cv2.VideoWriter_fourcc(*"mp4v"), 30, (width, height))
    for t, frame in enumerate(frames):
        writer.write(np.roll(frame, int(args.cam_type) * t, axis=1))
    writer.release()
