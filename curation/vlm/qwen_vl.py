"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL through transformers: answers, and grades by all their probabilities."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from curation.vlm import client, hub
from curation.vlm.client import expected
from curation.vlm.errors import AssetError
from curation.vlm.interface import AnnotatorError, Backend, NoAnswerError, Rating
from curation.vlm.weights import Weights, checkpoint_weights
from shards.errors import first_line

MODEL = "Qwen-VL"
LICENSE = "Apache-2.0; Qwen2-VL and Qwen2.5-VL 72B: Qwen licence, Qwen2.5-VL 3B: Qwen research licence"
FAMILIES = {  # model_type of config.json -> the model's name
    "qwen2_vl": "qwen2-vl",
    "qwen2_5_vl": "qwen2.5-vl",
    "qwen3_vl": "qwen3-vl",
    "qwen3_vl_moe": "qwen3-vl-moe",
}
RATE = 2.0  # frames a second of a video whose times are not told, as qwen-vl-utils assumes
FEWEST = 4  # tokens of a picture or frame at least, as qwen-vl-utils has it


class QwenVl:
    """The language model; config.json of the checkpoint says which of the three generations it is.

    Args:
        checkpoint: folder or hub repository.
        tokens: of one answer at most.
        pixels: of one picture or frame at most; larger ones are scaled down.
        device: "auto" is CUDA where there is one.
        dtype: "auto" is bfloat16 on CUDA and float32 on the CPU.
    """

    license = LICENSE
    gpus: ClassVar[float] = 0.5
    code = (client,)

    def __init__(
        self,
        checkpoint: str = "Qwen/Qwen2-VL-7B-Instruct",
        tokens: int = 512,
        pixels: int = 512 * 28 * 28,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.checkpoint, self.tokens, self.pixels = checkpoint, tokens, pixels
        self.device, self.dtype = device, dtype

    @property
    def folder(self) -> Path:
        """Where the checkpoint is. Raises AssetError when it is not, or not all of it."""
        return hub.folder_of(self.checkpoint, MODEL, LICENSE)

    def describe(self) -> Backend:
        """Generation, revision and limits. Raises AssetError for a checkpoint of another model."""
        folder = self.folder
        settings = {"tokens": self.tokens, "pixels": self.pixels, "dtype": self.dtype}
        return Backend("transformers", family_of(folder), hub.revision_of(folder), settings)

    def weights(self) -> list[Weights]:
        """The model."""
        return checkpoint_weights(self.checkpoint, self.dtype)

    def ask(
        self,
        media: Sequence[np.ndarray],
        text: str,
        *,
        system: str = "",
        times: Sequence[Sequence[float]] = (),
    ) -> str:
        """Its answer, greedy; see `Vlm`. Raises NoAnswerError when it is empty."""
        import torch

        processor, model = self._loaded()
        inputs = self._inputs(media, text, system, times)
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=self.tokens, do_sample=False)
        told = processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
        if not told.strip():
            raise NoAnswerError(f"{MODEL}: answered nothing")
        return told.strip()

    def rate(
        self,
        media: Sequence[np.ndarray],
        text: str,
        *,
        system: str = "",
        times: Sequence[Sequence[float]] = (),
    ) -> Rating:
        """The mean of the grades 0 to 10, weighed by their probabilities; the likeliest one as the text.

        The tokenizer splits digits, so "10" begins like "1": a second step asks for what follows a 1. Raises
        NoAnswerError when the model is about to say something else than a grade. See `Vlm`.
        """
        import torch

        processor, model = self._loaded()
        digits = [processor.tokenizer.encode(str(d), add_special_tokens=False) for d in range(10)]
        if any(len(d) != 1 for d in digits):
            raise AnnotatorError(f"{MODEL}: this tokenizer has no single tokens for digits")
        tokens = [d[0] for d in digits]
        with torch.inference_mode():
            made = model.generate(
                **self._inputs(media, text, system, times),
                max_new_tokens=2,
                do_sample=False,
                prefix_allowed_tokens_fn=lambda *_: [tokens[1]],  # it has said 1, whatever it would have said
                output_logits=True,  # as they were before that rule
                return_dict_in_generate=True,
            )
        first, second = (logits[0].float().softmax(-1) for logits in made.logits)
        weights = first[tokens].double().cpu().numpy()
        after = float(second[tokens[0]])
        weights = np.append(weights, weights[1] * after)
        weights[1] *= 1 - after
        likeliest = processor.tokenizer.decode([int(first.argmax())])
        return expected(weights, f"{MODEL}: {likeliest!r}")

    def _inputs(
        self, media: Sequence[np.ndarray], text: str, system: str, times: Sequence[Sequence[float]]
    ) -> Any:
        """What the processor makes of a question, on the model's device."""
        import torch
        from PIL import Image

        processor, model = self._loaded()
        side = processor.image_processor.patch_size * processor.image_processor.merge_size
        pictures = [
            Image.fromarray(scaled(one[None], side, self.pixels)[0]) for one in media if one.ndim == 3
        ]
        videos = [
            torch.from_numpy(scaled(one, side, self.pixels)).permute(0, 3, 1, 2)
            for one in media
            if one.ndim == 4
        ]
        content = [{"type": "image" if one.ndim == 3 else "video"} for one in media]
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
        if system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        asked = processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, add_vision_id=len(media) > 1
        )
        # scaled and sampled already: the processor must not do so on its own account
        kinds: dict[str, dict[str, Any]] = {"images_kwargs": {"do_resize": False}}
        if videos:
            told = times or [[t / RATE for t in range(len(one))] for one in videos]
            metadata = [_metadata(seconds) for seconds in told]
            kinds["videos_kwargs"] = {"do_resize": False, "do_sample_frames": False}
            kinds["videos_kwargs"] |= {"cap_pixels_per_frame": True, "video_metadata": metadata}
        inputs = processor(
            text=[asked], images=pictures or None, videos=videos or None, return_tensors="pt", **kinds
        )
        inputs.pop("video_metadata", None)
        return inputs.to(model.device)

    def _loaded(self) -> tuple[Any, Any]:
        return _load(self.folder, hub.device_of(self.device), self.dtype)


def family_of(folder: Path) -> str:
    """The name of a checkpoint's model. Raises AssetError for one that is none of `FAMILIES`."""
    try:
        held = json.loads((folder / "config.json").read_text())
        kind = held["model_type"]
        return FAMILIES[kind]
    except (OSError, ValueError, TypeError, KeyError) as error:
        named = isinstance(error, KeyError) and error.args != ("model_type",)
        what = f"holds a {kind}" if named else "its config.json names no model"
        raise AssetError(
            f"{folder}: {what}; Qwen2-VL, Qwen2.5-VL or Qwen3-VL is wanted, with model_type one of "
            f"{', '.join(FAMILIES)}"
        ) from None


def scaled(frames: np.ndarray, side: int, pixels: int) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] with height and width in multiples of `side`, of at most `pixels` a frame.

    As Qwen-VL's processors do: sizes are rounded to the nearest multiple, and the aspect is kept as nearly as
    multiples allow; frames of fewer than `FEWEST` multiples are enlarged.
    """
    from PIL import Image

    height, width = frames.shape[1:3]
    most, least = max(pixels, FEWEST * side * side), FEWEST * side * side
    new = [max(side, round(length / side) * side) for length in (height, width)]
    if new[0] * new[1] > most:
        scale = math.sqrt(most / (height * width))
        new = [max(side, math.floor(length * scale / side) * side) for length in (height, width)]
    elif new[0] * new[1] < least:
        scale = math.sqrt(least / (height * width))
        new = [math.ceil(length * scale / side) * side for length in (height, width)]
    if new == [height, width]:
        return np.ascontiguousarray(frames)
    size = (new[1], new[0])
    resized = [Image.fromarray(f).resize(size, Image.Resampling.BICUBIC) for f in frames]
    return np.stack([np.asarray(one) for one in resized])


def _metadata(seconds: Sequence[float]) -> dict[str, Any]:
    """What processors want to know of a video: its frames' times, here in milliseconds."""
    if len(seconds) > 1:
        step = (seconds[-1] - seconds[0]) / (len(seconds) - 1)
    else:
        step = 1 / RATE
    total = max(1, round(1000 * step * len(seconds)))
    return {
        "fps": 1000.0,
        "total_num_frames": total,
        "frames_indices": [round(1000 * t) for t in seconds],
        "duration": total / 1000,
    }


@functools.lru_cache(maxsize=1)
def _load(folder: Path, device: str, dtype: str) -> tuple[Any, Any]:
    """Processor and model; kept by the process, whether it writes, captions or judges.

    Raises AssetError for a checkpoint that lacks a part, or whose weights are not its config.json's.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    family = family_of(folder)
    try:
        processor = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise AssetError(f"{folder}: no processor of {family} ({first_line(error)[:160]})") from None
    hub.note_loaded(MODEL)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its report of foreign weights has many lines; one is raised below
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=hub.dtype_of(dtype, device), output_loading_info=True, device_map=device
        )
    except RuntimeError as error:
        if "size mismatch" not in str(error) and "mismatched_sizes" not in str(error):
            raise
        raise AssetError(_foreign(folder, family, ["weights of other sizes"])) from None
    finally:
        logging.set_verbosity(verbosity)
    model, told = loaded
    if foreign := [*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])]:
        raise AssetError(_foreign(folder, family, foreign))
    return processor, model.eval()


def _foreign(folder: Path, family: str, names: list[str]) -> str:
    return f"{folder}: its weights are not those of the {family} that its config.json names ({names[0]})"


def release() -> None:
    """Drop the weights; the next question reads them again."""
    import torch

    _load.cache_clear()
    hub.note_released(MODEL)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
