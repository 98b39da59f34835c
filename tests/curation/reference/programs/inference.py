"""Stands in for Step1X-Edit's program: the same command line, files, sizes and demands; it inverts colours.

FAIL: see `failing`. "size" writes a picture of half the size, "nothing" none.
"""

import argparse
import json
import math
import os

import numpy as np
from failing import FAIL, at_import, at_work
from PIL import Image

at_import()


class ImageGenerator:
    def __init__(
        self,
        dit_path: "str | None" = None,
        ae_path: "str | None" = None,
        qwen2vl_model_path: "str | None" = None,
        device: str = "cuda",
        max_length: int = 640,
        dtype: object = None,
        quantized: bool = False,
        offload: bool = False,
        lora: object = None,
    ) -> None:
        for path in (dit_path, ae_path, os.path.join(qwen2vl_model_path, "config.json")):  # noqa: PTH118
            assert os.path.isfile(path), path  # noqa: PTH113
        with open("loads.txt", "a") as file:  # noqa: PTH123  # how often, for the tests
            file.write(f"{os.getpid()}\n")

    def input_process_image(self, img: Image.Image, img_size: int = 512) -> "tuple[Image.Image, tuple]":
        width, height = img.size
        ratio = width / height
        if width > height:
            across = math.ceil(math.sqrt(img_size * img_size * ratio))
            down = math.ceil(across / ratio)
        else:
            down = math.ceil(math.sqrt(img_size * img_size / ratio))
            across = math.ceil(down * ratio)
        return img.resize((across // 16 * 16, down // 16 * 16)), img.size

    def generate_image(
        self,
        prompt: str,
        negative_prompt: str,
        ref_images: Image.Image,
        num_steps: int,
        cfg_guidance: float,
        seed: int,
        num_samples: int = 1,
        init_image: object = None,
        image2image_strength: float = 0.0,
        show_progress: bool = False,
        size_level: int = 512,
    ) -> list:
        assert num_samples == 1, "num_samples > 1 is not supported yet."
        at_work()
        seen, size = self.input_process_image(ref_images, size_level)
        drawn = 255 - np.asarray(seen).astype(int)
        drawn[:16, :16] = seed % 256  # so that a test sees it
        picture = Image.fromarray(drawn.astype(np.uint8)).resize(size)
        return [picture.resize((size[0] // 2, size[1] // 2)) if FAIL == "size" else picture]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_path", type=str, required=True)
    parser.add_argument("--input_dir", type=str, required=True)
    parser.add_argument("--output_dir", type=str, required=True)
    parser.add_argument("--json_path", type=str, required=True)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--num_steps", type=int, default=28)
    parser.add_argument("--cfg_guidance", type=float, default=6.0)
    parser.add_argument("--size_level", default=512, type=int)
    parser.add_argument("--offload", action="store_true")
    parser.add_argument("--quantized", action="store_true")
    parser.add_argument("--lora", type=str, default=None)
    args = parser.parse_args()
    out = args.output_dir.rstrip("/") + ("-offload" if args.offload else "")
    out += ("-quantized" if args.quantized else "") + f"-{args.size_level}"
    os.makedirs(out, exist_ok=True)  # noqa: PTH103
    with open(args.json_path) as file:  # noqa: PTH123
        pictures = json.load(file)
    editor = ImageGenerator(
        ae_path=os.path.join(args.model_path, "vae.safetensors"),  # noqa: PTH118
        dit_path=os.path.join(args.model_path, "step1x-edit-i1258.safetensors"),  # noqa: PTH118
        qwen2vl_model_path=os.path.join(args.model_path, "Qwen2.5-VL-7B-Instruct"),  # noqa: PTH118
    )
    times = []
    for name, prompt in pictures.items():
        picture = editor.generate_image(
            prompt,
            negative_prompt="",
            ref_images=Image.open(os.path.join(args.input_dir, name)).convert("RGB"),  # noqa: PTH118
            num_steps=args.num_steps,
            cfg_guidance=args.cfg_guidance,
            seed=args.seed,
            size_level=args.size_level,
        )[0]
        times.append(1.0)
        if FAIL != "nothing":
            picture.save(os.path.join(out, name), lossless=True)  # noqa: PTH118
    print("average time: ", sum(times[1:]) / len(times[1:]))


if __name__ == "__main__":
    main()
