"""Any editing pipeline of diffusers: image editors, video to video, and VACE's kind with masks.

Which field of an item goes to which argument is said in a mapping; without one it is taken from the names of
the call's own parameters (`default_arguments`).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import astuple
from functools import cached_property
from typing import Any, Literal

import numpy as np

from benchmark.core.fingerprint import content_of
from benchmark.core.item import BenchmarkError, Item, Loaded, RunStopped
from benchmark.systems.edit_cache import Edited
from benchmark.systems.item_fields import Fields, Shape, filled, placeholders
from benchmark.systems.per_frame import edited_frames, takes_stills, words_of
from curation.vlm import hub
from shards.errors import EditVerseError, first_line
from shards.limits import shown

INDEX = "model_index.json"
# By parameter, in diffusers' words; the first that fits a call's parameter is taken.
FROM_NAMES = {
    "video": "{masked|video}",
    "image": "{image}",
    "mask": "{mask?}",
    "mask_image": "{mask}",
    "reference_images": "{references?}",
    "image_reference": "{reference?}",
    "height": "{height}",
    "width": "{width}",
    "num_frames": "{frames}",
}
DESCRIBED = ("VideoToVideo", "VACE", "Img2Img", "Inpaint")  # these take a description of the result
RESULTS = ("frames", "images", "videos")  # where outputs have pictures


class DiffusersPipeline:
    """An `ItemEditor` that calls a pipeline, which is loaded at the first edit.

    Weights are safetensors alone, code is diffusers' own alone. A pipeline with an argument of `image` and
    none of `video` edits a clip frame by frame, each with the same seed, unless `each_frame` is false.

    Args:
        path: folder with model_index.json, or a repository of the hub (`owner/name`, `owner/name@revision`)
            that is cached or can be fetched.
        arguments: of the call: an item's fields in braces (`benchmark.systems.item_fields`), or values such
            as num_inference_steps, beside those of `default_arguments`; null takes one of these away.
        shape: `multiple`, `area`, `stride` and `longest`, see `item_fields.Shape`; what is left out follows
            from the pipeline's compression.
        output: attribute of what the call gives, when it is none of `frames`, `images`, `videos`.
        pipeline: name of another class of diffusers that is to read the weights.
        scheduler: name of a class of diffusers and its settings, beside those of the checkpoint's scheduler:
            {class: UniPCMultistepScheduler, flow_shift: 3.0}.
        fps: frames per second of what it makes; the source's when None.
        offload: keep parts that are idle in main memory, on a GPU.
        dtype: of the weights; `auto` is bfloat16 on a GPU and float32 on a CPU.
        seed: of the noise, from a generator on the CPU, so that devices begin with the same.

    Raises BenchmarkError for settings that are none.
    """

    def __init__(
        self,
        path: str,
        arguments: Mapping[str, Any] | None = None,
        shape: Mapping[str, Any] | None = None,
        output: str | None = None,
        pipeline: str | None = None,
        scheduler: Mapping[str, Any] | None = None,
        each_frame: bool = True,
        fps: float | None = None,
        offload: bool = False,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.path, self.given, self.asked_shape = path, dict(arguments or {}), dict(shape or {})
        self.output, self.class_name, self.scheduler = output, pipeline, dict(scheduler or {})
        self.each_frame, self.fps, self.offload, self.dtype = each_frame, fps, offload, dtype
        self.seed, self.device = seed, device
        self._pipe: Any = None
        try:
            self.folder = hub.folder_of(path, "a diffusers pipeline", "see its page on the hub", INDEX)
        except EditVerseError as error:
            raise BenchmarkError(first_line(error)) from None
        self.shape = self._shape()
        self.arguments = self._arguments()
        self.names = placeholders(self.arguments)

    @cached_property
    def kind(self) -> Any:
        """The pipeline's class; BenchmarkError for a name that diffusers does not have."""
        import diffusers

        config = diffusers.DiffusionPipeline.load_config(self.folder)
        name = self.class_name or config.get("_class_name")
        kind = getattr(diffusers, name, None) if isinstance(name, str) else None
        if not (inspect.isclass(kind) and issubclass(kind, diffusers.DiffusionPipeline)):
            raise BenchmarkError(
                f"{self.folder / INDEX}: {shown(name)} is no pipeline of diffusers {diffusers.__version__}"
            )
        return kind

    def _shape(self) -> Shape:
        known = {
            name: self.asked_shape.pop(name)
            for name in list(self.asked_shape)
            if name in Shape.__annotations__
        }
        if self.asked_shape:
            raise BenchmarkError(
                f"shape: {next(iter(self.asked_shape))}: there are {', '.join(Shape.__annotations__)}"
            )
        moves = "video" in inspect.signature(self.kind.__call__).parameters
        return Shape(**{"multiple": 16 if moves else 8, "stride": 4 if moves else 1} | known)

    def _arguments(self) -> dict[str, Any]:
        known = inspect.signature(self.kind.__call__).parameters
        if unknown := next((name for name in self.given if name not in known), None):
            raise BenchmarkError(
                f"arguments: {self.kind.__name__} takes no {unknown}; it takes "
                f"{', '.join(name for name in known if name != 'self')}"
            )
        every = default_arguments(self.kind) | self.given
        return {name: value for name, value in every.items() if value is not None}

    @cached_property
    def weights(self) -> str:
        """What tells these weights from others: a snapshot's commit, else the hash of all files."""
        if self.folder.parent.name == "snapshots":
            return self.folder.name
        return str(content_of(str(self.folder)))

    def depends(self, item: Item) -> list[Any]:
        """The weights, the call, and the item's media and words that it is given."""
        shape = astuple(self.shape)
        settings = [shape, self.each_frame, self.output, self.scheduler, self.fps, self.dtype, self.seed]
        words = words_of(item, self.names)
        return ["diffusers", self.kind.__name__, self.weights, self.arguments, settings, item.content, words]

    def edit(self, item: Item, loaded: Loaded) -> Edited:
        """See `ItemEditor`."""
        still = self.each_frame and takes_stills(self.names)
        frames = edited_frames(item, loaded, self.shape, self.seed, still, self._call)
        return Edited({"edit": frames}, self.fps or loaded.fps)

    def _call(self, fields: Fields) -> np.ndarray:
        import torch

        pipe = self._loaded()
        given = {name: filled(value, fields.get) for name, value in self.arguments.items()}
        call: dict[str, Any] = {
            name: pictures_of(value) for name, value in given.items() if value is not None
        }
        known = inspect.signature(self.kind.__call__).parameters
        if "generator" in known:
            call["generator"] = torch.Generator("cpu").manual_seed(fields.seed)
        with torch.inference_mode():
            made = pipe(**{"output_type": "np"} | call if "output_type" in known else call)
        return frames_of(made, self.output)

    def _loaded(self) -> Any:
        if self._pipe is None:
            import diffusers
            import torch
            import transformers

            diffusers.utils.logging.disable_progress_bar()
            transformers.utils.logging.disable_progress_bar()
            try:
                precision = hub.dtype_of(self.dtype, self.device.partition(":")[0])
                parts = self.kind.load_config(self.folder)
                wan = "AutoencoderKLWan" in (parts.get("vae") or [])  # which its pages keep in float32
                given = {"default": precision, "vae": torch.float32} if wan else precision
                pipe = self.kind.from_pretrained(self.folder, dtype=given, use_safetensors=True)
                if self.scheduler:
                    named = {name: value for name, value in self.scheduler.items() if name != "class"}
                    kind = getattr(diffusers, str(self.scheduler.get("class")), type(pipe.scheduler))
                    pipe.scheduler = kind.from_config(pipe.scheduler.config, **named)
                pipe.set_progress_bar_config(disable=True)
                self._pipe = hub.on_device(pipe, self.device, self.offload)
            except (
                ValueError,
                RuntimeError,
                OSError,
                TypeError,
                AttributeError,
                ImportError,
                KeyError,
            ) as error:
                raise RunStopped(f"{self.path}: does not load: {first_line(error)}") from error
        return self._pipe

    def release(self) -> None:
        """Drop the loaded pipeline, and what it held of the GPU."""
        if self._pipe is not None:
            self._pipe = None
            import gc

            import torch

            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()


def default_arguments(kind: type) -> dict[str, str]:
    """Arguments of a pipeline's call by the names of its parameters.

    The prompt is the instruction; for pipelines that draw towards a description (video to video, VACE,
    inpainting) it is the target's, where an item has one.
    """
    parameters = inspect.signature(kind.__call__).parameters
    described = any(part in kind.__name__ for part in DESCRIBED)
    found = {name: field for name, field in FROM_NAMES.items() if name in parameters}
    if "video" in found:  # an image beside a video is a reference
        found.pop("image", None)
    if "mask" not in found and "mask_image" not in found and "video" in found:
        found["video"] = "{video}"
    return {"prompt": "{target_prompt|instruction}" if described else "{instruction}"} | found


def pictures_of(value: Any) -> Any:
    """Arrays as the PIL pictures that pipelines take: one of [H, W, ...], a list of [T, H, W, ...]."""
    from PIL import Image

    if isinstance(value, list):
        return [pictures_of(one) for one in value]
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype == bool:
        grey = np.where(value, np.uint8(255), np.uint8(0))
        if value.ndim == 2:
            return Image.fromarray(grey)
        return [Image.fromarray(one).convert("RGB") for one in grey]  # as VACE's examples have them
    return [Image.fromarray(f) for f in value] if value.ndim == 4 else Image.fromarray(value)


def frames_of(made: Any, output: str | None = None) -> np.ndarray:
    """uint8 RGB [T, H, W, 3] of what a pipeline gave: arrays or tensors of 0 to 1, or PIL pictures.

    Raises BenchmarkError for what holds no pictures of three channels, or values that are no numbers.
    """
    names = [output] if output else [name for name in RESULTS if getattr(made, name, None) is not None]
    if not names or getattr(made, names[0], None) is None:
        raise BenchmarkError(f"{type(made).__name__} has no {output or ' or '.join(RESULTS)}")
    held = getattr(made, names[0])
    if isinstance(held, list):
        flat = held[0] if isinstance(held[0], list) else held
        held = np.stack([np.asarray(one.convert("RGB") if hasattr(one, "convert") else one) for one in flat])
    elif hasattr(held, "detach"):
        held = held.detach().float().cpu().numpy()
        held = np.moveaxis(held, -3, -1) if held.shape[-1] != 3 else held
    frames = np.asarray(held)
    while frames.ndim > 4:
        frames = frames[0]
    if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise BenchmarkError(f"gave an array of {frames.shape}, not of frames, height, width and 3 colours")
    if frames.dtype == np.uint8:
        return frames
    if not np.isfinite(frames).all():
        raise BenchmarkError("gave values that are not finite")
    return (np.clip(frames, 0, 1) * 255).round().astype(np.uint8)
