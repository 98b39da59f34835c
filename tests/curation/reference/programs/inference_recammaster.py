"""Stands in for ReCamMaster's program: the same command line, files and demands.

FRAMES and SIZE in the environment replace its 81 frames of 480x832.
"""

import argparse
import csv
import json
import os

import cv2
import numpy as np
import torch
from diffsynth import WanVideoReCamMasterPipeline, save_video

LENGTH = int(os.environ.get("FRAMES", "81"))
HEIGHT, WIDTH = (int(side) for side in os.environ.get("SIZE", "480x832").split("x"))


class TextVideoCameraDataset(torch.utils.data.Dataset):
    def __init__(self, base_path: str, metadata_path: str, args: argparse.Namespace) -> None:
        with open(metadata_path) as handle:  # noqa: PTH123
            rows = list(csv.DictReader(handle))
        self.path = [os.path.join(base_path, "videos", row["file_name"]) for row in rows]  # noqa: PTH118
        self.text = [row["text"] for row in rows]
        self.args, self.cam_type = args, args.cam_type

    def __getitem__(self, number: int) -> dict:
        capture, frames = cv2.VideoCapture(self.path[number]), []
        while len(frames) < LENGTH:
            more, frame = capture.read()
            if not more:
                raise ValueError(f"{self.path[number]} is not a valid video.")
            frames.append(cv2.resize(frame[..., ::-1], (WIDTH, HEIGHT)))
        with open("./example_test_data/cameras/camera_extrinsics.json") as handle:  # noqa: PTH123
            camera = json.load(handle)["frame0"][f"cam{int(self.cam_type):02d}"]
        return {"text": self.text[number], "video": torch.from_numpy(np.stack(frames)), "camera": camera}

    def __len__(self) -> int:
        return len(self.path)


parser = argparse.ArgumentParser(description="ReCamMaster Inference")
parser.add_argument("--dataset_path", type=str, default="./example_test_data")
parser.add_argument("--ckpt_path", type=str, default="./models/ReCamMaster/checkpoints/step20000.ckpt")
parser.add_argument("--output_dir", type=str, default="./results")
parser.add_argument("--dataloader_num_workers", type=int, default=1)
parser.add_argument("--cam_type", type=str, default=1)
parser.add_argument("--cfg_scale", type=float, default=5.0)

if __name__ == "__main__":
    args = parser.parse_args()
    assert os.path.isfile(args.ckpt_path), args.ckpt_path  # noqa: PTH113
    pipe = WanVideoReCamMasterPipeline()
    folder = os.path.join(args.output_dir, f"cam_type{args.cam_type}")  # noqa: PTH118
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    dataset = TextVideoCameraDataset(
        args.dataset_path,
        os.path.join(args.dataset_path, "metadata.csv"),  # noqa: PTH118
        args,
    )
    loader = torch.utils.data.DataLoader(
        dataset, shuffle=False, batch_size=1, num_workers=args.dataloader_num_workers
    )
    for number, batch in enumerate(loader):
        video = pipe(
            prompt=batch["text"],
            negative_prompt="static",
            source_video=batch["video"],
            target_camera=batch["camera"],
            cfg_scale=args.cfg_scale,
            num_inference_steps=50,
            seed=0,
            tiled=True,
        )
        save_video(video, os.path.join(folder, f"video{number}.mp4"), fps=30, quality=5)  # noqa: PTH118
