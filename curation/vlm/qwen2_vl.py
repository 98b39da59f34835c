"""Qwen2-VL through transformers: answers, and grades by the probabilities of all of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from curation.vlm import client, hub
from curation.vlm.client import expected
from curation.vlm.interface import AnnotatorError, Backend, Rating
from curation.vlm.weights import Weights, checkpoint_weights

MODEL = "Qwen2-VL"
LICENSE = "Apache-2.0 (2B, 7B), Qwen licence (72B)"


class Qwen2Vl:
    """The language model.

    Args:
        checkpoint: folder or hub repository.
        tokens: of one answer at most.
        pixels: of one picture at most; larger ones are scaled down by qwen-vl-utils.
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
        """Where the checkpoint is."""
        return hub.folder_of(self.checkpoint, "Qwen2-VL", LICENSE)

    def describe(self) -> Backend:
        """Checkpoint and limits."""
        hub.package("qwen_vl_utils")
        settings = {"tokens": self.tokens, "pixels": self.pixels, "dtype": self.dtype}
        return Backend("transformers", "qwen2-vl", hub.revision_of(self.folder), settings)

    def weights(self) -> list[Weights]:
        """The model."""
        return checkpoint_weights(self.checkpoint, self.dtype)

    def ask(self, media: Sequence[np.ndarray], text: str) -> str:
        """Its answer, greedy. Raises AnnotatorError when it is empty."""
        import torch

        processor, model = self._loaded()
        inputs = self._inputs(media, text)
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=self.tokens, do_sample=False)
        told = processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
        if not told.strip():
            raise AnnotatorError("Qwen2-VL: answered nothing")
        return told.strip()

    def rate(self, media: Sequence[np.ndarray], text: str) -> Rating:
        """The mean of the grades 0 to 10, weighed by their probabilities; the likeliest one as the text.

        The tokenizer splits digits, so "10" begins like "1": a second pass asks for what follows a 1.
        """
        import torch

        processor, model = self._loaded()
        inputs = dict(self._inputs(media, text))
        digits = [processor.tokenizer.encode(str(d), add_special_tokens=False) for d in range(10)]
        if any(len(d) != 1 for d in digits):
            raise AnnotatorError("Qwen2-VL: this tokenizer has no single tokens for digits")
        tokens = [d[0] for d in digits]
        with torch.inference_mode():
            first = model(**inputs).logits[0, -1].float().softmax(-1)
            one = torch.tensor([[tokens[1]]], device=model.device)
            longer = {"input_ids": torch.cat([inputs["input_ids"], one], 1)}
            longer["attention_mask"] = torch.ones_like(longer["input_ids"])
            if "mm_token_type_ids" in inputs:
                kinds = inputs["mm_token_type_ids"]
                longer["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(kinds[:, :1])], 1)
            second = model(**{**inputs, **longer}).logits[0, -1].float().softmax(-1)
        weights = first[tokens].double().cpu().numpy()
        after = float(second[tokens[0]])
        weights = np.append(weights, weights[1] * after)
        weights[1] *= 1 - after
        return expected(weights)

    def _inputs(self, media: Sequence[np.ndarray], text: str) -> Any:
        from PIL import Image

        vision = hub.package("qwen_vl_utils")
        processor, model = self._loaded()
        content: list[dict[str, Any]] = []  # of a message, as the processor takes it
        for one in media:
            if one.ndim == 3:
                content.append({"type": "image", "image": Image.fromarray(one), "max_pixels": self.pixels})
            else:
                frames = [Image.fromarray(f) for f in one]
                content.append({"type": "video", "video": frames, "max_pixels": self.pixels})
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
        asked = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        images, videos = vision.process_vision_info(messages)
        # sampled already: the processor must not drop frames on its own account
        options: dict[str, Any]  # keywords of the processor's call
        options = {"do_sample_frames": False, "cap_pixels_per_frame": True} if videos else {}
        inputs = processor(text=[asked], images=images, videos=videos, return_tensors="pt", **options)
        return inputs.to(model.device)

    def _loaded(self) -> tuple[Any, Any]:
        return _load(self.folder, hub.device_of(self.device), self.dtype)


@functools.lru_cache(maxsize=1)
def _load(folder: Path, device: str, dtype: str) -> tuple[Any, Any]:
    """Processor and model; kept by the process, whether it writes, captions or judges."""
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    hub.note_loaded(MODEL)
    precision = hub.dtype_of(dtype, device)
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=precision)
    return AutoProcessor.from_pretrained(folder), model.eval().to(device)


def release() -> None:
    """Drop the weights; the next question reads them again."""
    import torch

    _load.cache_clear()
    hub.note_released(MODEL)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
