"""CLIP as transformers loads it (OpenAI's ViT-L/14, and PickScore, which is a CLIP), and DINOv2."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from benchmark.core.item import BenchmarkError, Mode, RunStopped
from benchmark.features.frames import Remembered, batches
from shards.errors import first_line

TEXT_TOKENS = 77

Backend = Literal["pil", "torchvision"]
BACKENDS = {"pil": "{}ImageProcessorPil", "torchvision": "{}ImageProcessor"}  # names in transformers 5


class Images:
    """Frames through a processor into batches of pixels.

    transformers has two kinds of processors. The published code names `CLIPImageProcessor` and
    `BitImageProcessor`, which resize by Pillow up to transformers 4 and by torchvision from 5 on; those by
    torchvision differ by a grey level here and there.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, frames: list[np.ndarray], device: str) -> Iterator[Tensor]:
        """Yields float32 [B, 3, H, W] of uint8 RGB frames [H, W, 3]."""
        from PIL import Image

        for some in batches(frames):
            pictures = [Image.fromarray(frame) for frame in some]
            yield self.processor(images=pictures, return_tensors="pt")["pixel_values"].to(device)


class Pretrained:
    """A network and what prepares its input, from folders or hub ids in transformers' layout.

    Args:
        path: of the checkpoint.
        processor: what images and text are prepared by, if not `path`: PickScore_v1 is used with
            laion/CLIP-ViT-H-14-laion2B-s32B-b79K's.
        device: such as `cpu` or `cuda`.
        revision: of `path` on the hub.
        mode: of the run; see `backend`.
        backend: what resizes frames. Not given it is the one of the class that the published code names in
            mode `official`, which is torchvision with the transformers of today, and Pillow in `corrected`.
    """

    def __init__(
        self,
        path: str,
        processor: str | None = None,
        device: str = "cpu",
        revision: str | None = None,
        mode: Mode = "corrected",
        backend: Backend | None = None,
    ) -> None:
        self.path, self.processor, self.device, self.revision = path, processor or path, device, revision
        if backend not in (None, *get_args(Backend)):
            raise BenchmarkError(f"backend {backend!r}: there are {', '.join(get_args(Backend))}")
        self.backend: Backend = backend or ("torchvision" if mode == "official" else "pil")

    @property
    def identity(self) -> dict[str, Any]:
        """What its features depend on; folders count by their content."""
        known = {"path": self.path, "processor": self.processor, "revision": self.revision}
        return known if self.backend == "pil" else known | {"backend": self.backend}

    def processors(self, name: str) -> Images:
        """The image processor that transformers has by this name, of the backend chosen; see `load`."""
        import transformers

        return Images(self.load(getattr(transformers, BACKENDS[self.backend].format(name)), self.processor))

    def load(self, kind: Any, path: str | None = None, **options: Any) -> Any:
        """A transformers model of this class, float32, in eval mode; or what `kind` prepares input with.

        With `output_loading_info=True` the model and what its checkpoint lacks, as transformers tells it.

        Raises RunStopped when it cannot be had.
        """
        try:
            if path is not None:
                return kind.from_pretrained(path)
            model = kind.from_pretrained(self.path, revision=self.revision or "main", **options)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise RunStopped(
                f"{path or self.path}: no {kind.__name__} to load: {first_line(error)} (a folder or a hub id "
                "in the metrics file)"
            ) from error
        if options:
            return model[0].to(self.device).eval(), model[1]
        return model.to(self.device).eval()


class Clip(Pretrained):
    """A CLIP with its pair of encoders."""

    @cached_property
    def model(self) -> Any:
        """transformers' CLIPModel."""
        from transformers import CLIPModel

        return self.load(CLIPModel)

    @cached_property
    def images(self) -> Images:
        """The image processor."""
        return self.processors("CLIP")

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        from transformers import CLIPTokenizer

        return self.load(CLIPTokenizer, self.processor)

    @cached_property
    def _remembered(self) -> Remembered:
        return Remembered()

    @torch.no_grad()
    def pooled(self, frames: list[np.ndarray]) -> Tensor:
        """`pooler_output` of the vision tower, before the projection: float32 [T, width].

        The last clips' are remembered, so that metrics that share this network see a clip's frames once.
        """
        return self._remembered(frames, self._pooled)

    def _pooled(self, frames: list[np.ndarray]) -> Tensor:
        tower = self.model.vision_model
        found = [tower(pixel_values=p).pooler_output for p in self.images(frames, self.device)]
        return torch.cat(found).float().cpu()

    @torch.no_grad()
    def projected(self, frames: list[np.ndarray]) -> Tensor:
        """In the space that frames and texts share: float32 [T, D], not normalised."""
        projected: Tensor = self.model.visual_projection(self.pooled(frames).to(self.device))
        return projected.float().cpu()

    @torch.no_grad()
    def text(self, text: str) -> Tensor:
        """A text in that space, cut at 77 tokens: float32 [D], not normalised."""
        tokens = self.tokenizer(text, truncation=True, max_length=TEXT_TOKENS, return_tensors="pt")
        states = self.model.text_model(**tokens.to(self.device)).pooler_output
        projected: Tensor = self.model.text_projection(states)
        return projected[0].float().cpu()

    def scale(self) -> float:
        """exp of the learned logit scale: about 100."""
        return float(self.model.logit_scale.detach().exp())


class Dino(Pretrained):
    """DINOv2."""

    @cached_property
    def model(self) -> Any:
        """transformers' Dinov2Model."""
        from transformers import Dinov2Model

        return self.load(Dinov2Model)

    @cached_property
    def images(self) -> Images:
        """The image processor: to 256 pixels, then the middle 224."""
        return self.processors("Bit")

    @torch.no_grad()
    def pooled(self, frames: list[np.ndarray]) -> Tensor:
        """`pooler_output`, the normed class token: float32 [T, width]."""
        found = [self.model(pixel_values=p).pooler_output for p in self.images(frames, self.device)]
        return torch.cat(found).float().cpu()
