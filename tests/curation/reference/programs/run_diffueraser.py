"""Stands in for DiffuEraser's program: the same command line, files and demands."""

import argparse
import os

from diffueraser.diffueraser import DiffuEraser
from propainter.inference import Propainter, get_device

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

if __name__ == "__main__":
    args = parser.parse_args()
    os.makedirs(args.save_path, exist_ok=True)  # noqa: PTH103
    prior = os.path.join(args.save_path, "priori.mp4")  # noqa: PTH118
    result = os.path.join(args.save_path, "diffueraser_result.mp4")  # noqa: PTH118
    eraser = DiffuEraser(
        get_device(), args.base_model_path, args.vae_path, args.diffueraser_path, ckpt="2-Step"
    )
    inputs = (args.input_video, args.input_mask)
    Propainter(args.propainter_model_dir, device=get_device()).forward(
        *inputs, prior, video_length=args.video_length, mask_dilation=args.mask_dilation_iter
    )
    eraser.forward(
        *inputs,
        prior,
        result,
        max_img_size=args.max_img_size,
        video_length=args.video_length,
        mask_dilation_iter=args.mask_dilation_iter,
        guidance_scale=None,
    )
