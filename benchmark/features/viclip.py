"""ViCLIP (Wang et al. 2023, InternVid): a CLIP whose vision tower attends over all patches of eight frames.

Written from the paper and the published checkpoint's names and shapes, which it loads strictly; sizes are
read from them. How many heads a tower has is in no tensor: as many as are 64 wide, as in the published code
(16 and 12), unless the file or the caller says a number. Differences to CLIP: the patch embedding is a 3-D
convolution over single frames, patches of frame t get a learned vector t, one class token stands for the
video, and texts have 32 tokens.
"""

from __future__ import annotations

import html
from collections import OrderedDict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core.item import RunStopped
from benchmark.features.checkpoints import read_checkpoint, read_numbers
from benchmark.features.frames import unit

HEAD = 64  # width of a head, as in all of CLIP's towers and in the published ViCLIP
HEADS = ("vision_heads", "text_heads")
WORDS = 2  # rises when a text becomes other tokens
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Block(nn.Module):
    """A pre-norm transformer block with CLIP's names and its quick GELU."""

    def __init__(self, width: int, heads: int) -> None:
        from transformers.activations import QuickGELUActivation

        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        layers = [
            ("c_fc", nn.Linear(width, 4 * width)),
            ("gelu", QuickGELUActivation()),
            ("c_proj", nn.Linear(4 * width, width)),
        ]
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, L, width]; `mask` is added to the attention's logits."""
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """Blocks, under the name that checkpoints have them by."""

    def __init__(self, width: int, depth: int, heads: int | None) -> None:
        super().__init__()
        heads = heads or max(1, width // HEAD)
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(depth))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, L, width]."""
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Vision(nn.Module):
    """Eight frames to one vector."""

    def __init__(
        self, width: int, depth: int, patch: int, grid: int, frames: int, out: int, heads: int | None
    ) -> None:
        super().__init__()
        self.frames, self.size = frames, patch * grid
        self.conv1 = nn.Conv3d(3, width, (1, patch, patch), (1, patch, patch), bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(grid * grid + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, frames, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, depth, heads)
        self.proj = nn.Parameter(torch.zeros(width, out))

    def forward(self, video: Tensor) -> Tensor:
        """float32 [B, T, 3, H, W] -> [B, out]."""
        x = self.conv1(video.transpose(1, 2)).flatten(3).permute(0, 2, 3, 1)  # [B, T, patches, width]
        x = x + self.positional_embedding[1:] + self.temporal_positional_embedding[:, :, None]
        first = self.class_embedding + self.positional_embedding[0]
        # patch by patch, the frames of each: the order of the published network (attention does not mind)
        x = torch.cat([first.expand(len(x), 1, -1), x.transpose(1, 2).flatten(1, 2)], 1)
        x = self.transformer(self.ln_pre(x))
        return self.ln_post(x[:, 0]) @ self.proj


class Text(nn.Module):
    """Tokens to one vector: the state of the end-of-text token, which has the largest id."""

    def __init__(
        self, width: int, depth: int, tokens: int, vocabulary: int, out: int, heads: int | None
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.zeros(tokens, width))
        self.transformer = Transformer(width, depth, heads)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, out))

    def forward(self, ids: Tensor) -> Tensor:
        """int64 [B, tokens], zeros after the end -> [B, out]."""
        x = self.token_embedding(ids) + self.positional_embedding
        mask = torch.full((self.tokens, self.tokens), -torch.inf, device=x.device).triu(1)
        x = self.ln_final(self.transformer(x, mask))
        return x[torch.arange(len(x)), ids.argmax(1)] @ self.text_projection


class Network(nn.Module):
    """Both towers and the training's temperature, which no score uses."""

    def __init__(self, state: Mapping[str, Tensor], heads: Mapping[str, int]) -> None:
        """Sizes from a checkpoint's tensors; KeyError where one that tells them is missing.

        ValueError for `heads` (of `HEADS`, where they are not 64 wide) that do not divide a tower's width.
        """
        super().__init__()
        conv = state["vision_encoder.conv1.weight"]
        self.vision_encoder = Vision(
            width=conv.shape[0],
            depth=_depth(state, "vision_encoder"),
            patch=conv.shape[-1],
            grid=round((len(state["vision_encoder.positional_embedding"]) - 1) ** 0.5),
            frames=state["vision_encoder.temporal_positional_embedding"].shape[1],
            out=state["vision_encoder.proj"].shape[1],
            heads=heads.get("vision_heads"),
        )
        words = state["text_encoder.token_embedding.weight"]
        self.text_encoder = Text(
            width=words.shape[1],
            depth=_depth(state, "text_encoder"),
            tokens=len(state["text_encoder.positional_embedding"]),
            vocabulary=len(words),
            out=state["text_encoder.text_projection"].shape[1],
            heads=heads.get("text_heads"),
        )
        self.temp = nn.Parameter(torch.zeros(()))


def _depth(state: Mapping[str, Tensor], tower: str) -> int:
    start = f"{tower}.transformer.resblocks."
    return 1 + max(int(name[len(start) :].split(".")[0]) for name in state if name.startswith(start))


class ViClip:
    """A loaded ViCLIP.

    Args:
        path: checkpoint file, `ViClip-InternVid-10M-FLT.pth` or the same tensors as .safetensors.
        tokenizer: folder or hub id with CLIP's tokenizer; ViCLIP's vocabulary is the same.
        device: such as `cpu` or `cuda`.
        vision_heads, text_heads: numbers of heads; not given, the file's (`vision_heads` and `text_heads`
            under `config` in a .pth beside `model`, in the metadata of a .safetensors, or in a `config.json`
            beside it), or else as many as are 64 wide, as in the published checkpoint.
    """

    def __init__(
        self,
        path: str,
        tokenizer: str = "openai/clip-vit-large-patch14",
        device: str = "cpu",
        vision_heads: int | None = None,
        text_heads: int | None = None,
    ) -> None:
        self.path, self.tokenizer_path, self.device = path, tokenizer, device
        self.heads = {n: h for n, h in zip(HEADS, (vision_heads, text_heads), strict=True) if h is not None}

    @property
    def identity(self) -> dict[str, Any]:
        """What its embeddings depend on; files count by their content."""
        heads = read_numbers(Path(self.path), HEADS) | self.heads
        return {"path": self.path, "tokenizer": self.tokenizer_path, "words": WORDS, **heads}

    @cached_property
    def model(self) -> Network:
        """The network, float32, in eval mode; RunStopped for a file that is not one."""
        state = read_checkpoint(Path(self.path), "OpenGVLab/ViCLIP, ViClip-InternVid-10M-FLT.pth")
        try:
            network = Network(state, read_numbers(Path(self.path), HEADS) | self.heads)
            network.load_state_dict(state)
        except (KeyError, ValueError, RuntimeError) as error:
            first = str(error).strip().splitlines()
            raise RunStopped(f"{self.path}: no ViCLIP: {' '.join(first[:2])}") from error
        return network.to(self.device).eval()

    @cached_property
    def tokenizer(self) -> Any:
        """CLIP's tokenizer."""
        from transformers import CLIPTokenizer

        try:
            return CLIPTokenizer.from_pretrained(self.tokenizer_path)
        except (OSError, ValueError) as error:
            raise RunStopped(f"{self.tokenizer_path}: no CLIP tokenizer to load: {error}") from error

    @property
    def frames(self) -> int:
        """How many frames it takes."""
        return self.model.vision_encoder.frames

    @torch.no_grad()
    def video(self, frames: list[np.ndarray]) -> Tensor:
        """Embedding of uint8 RGB frames [H, W, 3], as many as it takes, of unit length: float32 [D].

        Each is resized (bicubic, PIL) until the middle square of the shorter side fills the network's input.
        """
        from PIL import Image
        from torchvision.transforms import v2

        if len(frames) != self.frames:
            raise ValueError(f"ViCLIP takes {self.frames} frames, got {len(frames)}")
        size = self.model.vision_encoder.size
        prepare = v2.Compose(
            [
                v2.Resize(size, interpolation=v2.InterpolationMode.BICUBIC),
                v2.CenterCrop(size),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )
        pixels = torch.stack([prepare(Image.fromarray(frame)) for frame in frames])
        return unit(self.model.vision_encoder(pixels[None].to(self.device))[0].float().cpu())

    @torch.no_grad()
    def text(self, text: str) -> Tensor:
        """Embedding of a text, cut at 32 tokens (the end token stays), of unit length: float32 [D].

        First cleaned as CLIP's own tokenizer does, which ViCLIP comes with: mended Unicode with straight
        quotes, HTML's entities resolved.
        """
        import ftfy

        tower = self.model.text_encoder
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
        ids = self.tokenizer(text, truncation=True, max_length=tower.tokens)["input_ids"]
        padded = torch.zeros(1, tower.tokens, dtype=torch.long)
        padded[0, : len(ids)] = torch.tensor(ids)
        return unit(tower(padded.to(self.device))[0].float().cpu())
