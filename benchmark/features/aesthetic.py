"""LAION's aesthetic predictors of the second kind: linear layers on CLIP's embedding of a picture.

V2VBench takes `shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE`, which holds CLIP's vision
tower and the layers of christophschuhmann/improved-aesthetic-predictor, sac+logos+ava1-l14-linearMSE.pth.
"""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core.item import RunStopped
from benchmark.features.clip import Images, Pretrained
from benchmark.features.frames import unit

WIDTHS = (1024, 128, 64, 16, 1)  # of the layers, which have nothing between them
PLACES = (0, 2, 4, 6, 7)  # their numbers in checkpoints: those between were dropout


class AestheticPredictor(Pretrained):
    """A vision tower with the second predictor's layers, from a folder or hub id in transformers' layout."""

    @cached_property
    def model(self) -> Any:
        """transformers' CLIPVisionModelWithProjection, with `layers`; RunStopped for a checkpoint without."""
        from transformers import CLIPVisionModelWithProjection

        class Network(CLIPVisionModelWithProjection):
            def __init__(self, config: Any) -> None:
                super().__init__(config)
                made: list[nn.Module] = [nn.Identity() for _ in range(PLACES[-1] + 1)]
                widths = (config.projection_dim, *WIDTHS)
                for place, (width, out) in zip(PLACES, itertools.pairwise(widths), strict=True):
                    made[place] = nn.Linear(width, out)
                self.layers = nn.Sequential(*made)
                self.post_init()

        model, told = self.load(Network, output_loading_info=True)
        if lacking := sorted(told["missing_keys"]):
            raise RunStopped(f"{self.path}: no aesthetic predictor of the second kind: lacks {lacking[0]}")
        return model

    @cached_property
    def images(self) -> Images:
        """The image processor."""
        return self.processors("CLIP")

    @torch.no_grad()
    def grades(self, frames: list[np.ndarray]) -> Tensor:
        """A grade of about 1 to 10 for each of uint8 RGB frames [H, W, 3]: float32 [T]."""
        found = []
        for pixels in self.images(frames, self.device):
            found.append(self.model.layers(unit(self.model(pixel_values=pixels).image_embeds))[:, 0])
        return torch.cat(found).float().cpu()
