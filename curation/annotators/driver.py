"""Keep a program loaded: `service.Service` runs this file with the interpreter of the program's environment.

Usage: `python driver.py KIND SETTINGS`, with the program's checkout as working directory. It imports nothing
of this project, and runs on Python 3.8 and later. Requests come as lines of JSON on standard input; answers
are lines of `MARK` and JSON on standard output. Whatever the program itself prints goes to standard error,
which is a log, so that a warning is never taken for an answer. It ends when its input ends, or when the
process that started it is no more.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

MARK = "editverse-answer "
LOOK = 1.0  # seconds between two looks at the parent


class Channel:
    """Requests and answers, through pipes that the program cannot write to by mistake."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        self._requests = os.fdopen(os.dup(0), encoding="utf-8")
        os.dup2(2, 1)  # also for what native code prints
        with open(os.devnull) as nothing:  # noqa: PTH123  # it is a number that is wanted
            os.dup2(nothing.fileno(), 0)
        self.request: dict[str, Any] = {}

    def send(self, **answer: object) -> None:
        """One line to the parent."""
        try:
            self._answers.write(MARK + json.dumps(answer) + "\n")
            self._answers.flush()
        except BrokenPipeError:
            end()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The requests, until there are no more."""
        for line in self._requests:
            self.request = json.loads(line)
            yield self.request

    def done(self) -> None:
        """The request was served."""
        self.send(id=self.request["id"], ok=True)

    def failed(self, error: BaseException, ends: bool = False) -> None:
        """The request could not be served; `ends` when no other can be either."""
        self.send(id=self.request["id"], ok=False, error=told(error), ends=ends)


def told(error: BaseException) -> str:
    """An error in one line. The programs call exit() where they cannot read a file."""
    if isinstance(error, SystemExit):
        return "gave up: exit({!r})".format("" if error.code is None else error.code)
    lines = str(error).strip().splitlines()
    return type(error).__name__ + (": " + lines[0] if lines else "")


def seed_everything(seed: int) -> None:
    """Seed PyTorch, if the program has loaded it: its VAE samples from the global generator."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)


def free_memory() -> None:
    """Give back what PyTorch has cached on the card, as the programs do at their end."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def diffueraser(channel: Channel, settings: dict[str, Any]) -> None:
    """DiffuEraser: the two models of its `run_diffueraser.py`, with that script's own values."""
    from diffueraser.diffueraser import DiffuEraser
    from propainter.inference import Propainter, get_device

    weights = settings["weights"]
    device = get_device()
    folders = [weights + "/" + name for name in ("stable-diffusion-v1-5", "sd-vae-ft-mse", "diffuEraser")]
    eraser = DiffuEraser(device, *folders, ckpt="2-Step")
    prior = Propainter(weights + "/propainter", device=device)
    channel.send(ready=True)
    for request in channel:
        files = [request["video"], request["mask"]]
        try:
            seed_everything(request["seed"])
            prior.forward(
                *files,
                request["prior"],
                video_length=request["seconds"],
                ref_stride=10,
                neighbor_length=10,
                subvideo_length=50,
                mask_dilation=settings["dilate"],
            )
            eraser.forward(
                *files,
                request["prior"],
                request["out"],
                max_img_size=request["side"],
                video_length=request["seconds"],
                mask_dilation_iter=settings["dilate"],
                seed=request["seed"],
            )
            free_memory()
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the next clip may do
            channel.failed(error)
        else:
            channel.done()


def recammaster(channel: Channel, settings: dict[str, Any]) -> None:
    """ReCamMaster: its own script is run as it is, but its list of videos is one that waits for requests.

    So the weights, the text that it does not want, steps and tiling are the script's. The seed of a clip is
    ours; the script has one for all.
    """
    import diffsynth
    import torch.utils.data

    torch_data: Any = torch.utils.data
    pipeline, save = diffsynth.WanVideoReCamMasterPipeline, diffsynth.save_video
    generate = pipeline.__call__

    def seeded(self: Any, *args: Any, **options: Any) -> Any:
        options["seed"] = channel.request["seed"]
        return generate(self, *args, **options)

    def save_there(frames: Any, path: str, *args: Any, **options: Any) -> Any:
        return save(frames, channel.request["out"], *args, **options)

    class Requests:
        """Stands where the script has its DataLoader."""

        def __init__(self, dataset: Any, *args: Any, **options: Any) -> None:
            self.dataset = dataset

        def __iter__(self) -> Iterator[Any]:
            channel.send(ready=True)
            for request in channel:
                self.dataset.path, self.dataset.text = [request["video"]], [request["caption"]]
                self.dataset.cam_type = request["camera"]
                try:
                    batch = torch.utils.data.default_collate([self.dataset[0]])
                except (Exception, SystemExit) as error:  # noqa: BLE001  # the next clip may do
                    channel.failed(error)
                    continue
                yield batch
                free_memory()
                channel.done()  # the script has written its video, and asks for the next one

    pipeline.__call__, diffsynth.save_video = seeded, save_there
    torch_data.DataLoader = Requests
    with tempfile.TemporaryDirectory(prefix="editverse-driver-") as home:
        with open(os.path.join(home, "metadata.csv"), "w") as table:  # noqa: PTH118, PTH123
            table.write("file_name,text\n")
        sys.argv = [settings["script"], "--dataset_path", home, "--output_dir", home]
        sys.argv += ["--ckpt_path", settings["checkpoint"], "--cfg_scale", str(settings["guidance"])]
        sys.argv += ["--dataloader_num_workers", "0"]
        runpy.run_path(settings["script"], run_name="__main__")


def step1x_edit(channel: Channel, settings: dict[str, Any]) -> None:
    """Step1X-Edit: the generator of its `inference.py`, loaded and called as that script's `main` does."""
    from inference import ImageGenerator
    from PIL import Image

    weights = settings["weights"]
    generator = ImageGenerator(
        ae_path=weights + "/vae.safetensors",
        dit_path=weights + "/step1x-edit-i1258.safetensors",
        qwen2vl_model_path=weights + "/Qwen2.5-VL-7B-Instruct",
        max_length=640,
        offload=settings["offload"],
    )
    channel.send(ready=True)
    for request in channel:
        try:
            picture = generator.generate_image(
                request["prompt"],
                negative_prompt="",
                ref_images=Image.open(request["image"]).convert("RGB"),
                num_samples=1,
                num_steps=settings["steps"],
                cfg_guidance=settings["guidance"],
                seed=request["seed"],
                show_progress=False,
                size_level=settings["size_level"],
            )[0]
            picture.save(request["out"])
            free_memory()
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the next picture may do
            channel.failed(error)
        else:
            channel.done()


def minimax_remover(channel: Channel, settings: dict[str, Any]) -> None:
    """MiniMax-Remover: loaded and called as its `test_minimax_remover.py` does, on any number of frames."""
    import numpy as np
    import torch
    from diffusers.models import AutoencoderKLWan
    from diffusers.schedulers import UniPCMultistepScheduler
    from pipeline_minimax_remover import Minimax_Remover_Pipeline
    from transformer_minimax_remover import Transformer3DModel

    weights = settings["weights"]
    vae = AutoencoderKLWan.from_pretrained(weights + "/vae", torch_dtype=torch.float16)
    transformer = Transformer3DModel.from_pretrained(weights + "/transformer", torch_dtype=torch.float16)
    scheduler = UniPCMultistepScheduler.from_pretrained(weights + "/scheduler")
    pipe = Minimax_Remover_Pipeline(transformer=transformer, vae=vae, scheduler=scheduler)
    pipe.to("cuda:0")  # as its code names it, too
    channel.send(ready=True)
    for request in channel:
        try:
            frames, mask = np.load(request["frames"]), np.load(request["mask"])
            made = pipe(
                images=torch.from_numpy(frames) / 127.5 - 1.0,
                masks=torch.from_numpy(mask)[..., None].float(),
                num_frames=len(frames),
                height=frames.shape[1],
                width=frames.shape[2],
                num_inference_steps=settings["steps"],
                generator=torch.Generator("cpu").manual_seed(request["seed"]),
                iterations=settings["dilate"],
            ).frames[0]
            np.save(request["out"], (np.clip(made, 0, 1) * 255).round().astype(np.uint8))
            free_memory()
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the next clip may do
            channel.failed(error)
        else:
            channel.done()


def video_depth_anything(channel: Channel, settings: dict[str, Any]) -> None:
    """Video-Depth-Anything: loaded and called as its `run.py` does, for relative depth."""
    import numpy as np
    import torch
    from video_depth_anything.video_depth import VideoDepthAnything

    features, channels = {
        "vits": (64, [48, 96, 192, 384]),
        "vitb": (128, [96, 192, 384, 768]),
        "vitl": (256, [256, 512, 1024, 1024]),
    }[settings["encoder"]]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = VideoDepthAnything(
        encoder=settings["encoder"], features=features, out_channels=channels, metric=False
    )
    model.load_state_dict(torch.load(settings["weights"], map_location="cpu"), strict=True)
    model = model.to(device).eval()
    channel.send(ready=True)
    for request in channel:
        try:
            depths, _ = model.infer_video_depth(
                np.load(request["frames"]), 25, input_size=settings["side"], device=device, fp32=False
            )
            np.save(request["out"], np.asarray(depths, np.float32))
            free_memory()
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the next clip may do
            channel.failed(error)
        else:
            channel.done()


KINDS = {
    "diffueraser": diffueraser,
    "recammaster": recammaster,
    "step1x_edit": step1x_edit,
    "minimax_remover": minimax_remover,
    "video_depth_anything": video_depth_anything,
}


def end() -> None:
    """End this process and all that it started."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


def watch(parent: int) -> None:
    """End when the parent is no more, also in the middle of a clip."""
    while os.getppid() == parent:
        time.sleep(LOOK)
    end()


def main() -> int:
    """Serve until there is nothing more to serve; returns the exit status."""
    kind, settings = sys.argv[1], json.loads(sys.argv[2])
    channel = Channel()
    threading.Thread(target=watch, args=(settings["parent"],), daemon=True).start()
    sys.path[0] = os.getcwd()  # as for a script of the checkout  # noqa: PTH109
    try:
        KINDS[kind](channel, settings)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # told to the parent, which decides
        if channel.request:
            channel.failed(error, ends=True)
        else:
            channel.send(ready=False, error=told(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
