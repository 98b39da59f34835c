"""Tiny random networks of the published layouts, as files: CLIP, DINOv2 and ViCLIP of 32 pixels."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
)


def tokenizer(folder: Path) -> Path:
    """CLIP's tokenizer without merges: a letter is a token, the end of text has the largest id."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={w: n for n, w in enumerate(words)}, merges=[]).save_pretrained(folder)
    return folder


def clip(folder: Path, tokenizer: Path, seed: int = 0) -> Path:
    """A CLIP of 32 pixels in transformers' layout, which PickScore shares."""
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    torch.manual_seed(seed)
    model = CLIPModel(
        CLIPConfig(
            text_config={**tower, **ends, "vocab_size": 514, "max_position_embeddings": 77},
            vision_config={**tower, "image_size": 32, "patch_size": 8},
            projection_dim=24,
        )
    )
    spread(model)
    model.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    CLIPTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def dino(folder: Path) -> Path:
    """A DINOv2 of 28 pixels, cut out of 32."""
    torch.manual_seed(1)
    model = Dinov2Model(
        Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7)
    )
    spread(model)
    model.save_pretrained(folder)
    BitImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}).save_pretrained(
        folder
    )
    return folder


def viclip_state() -> dict[str, torch.Tensor]:
    """Tensors under the published names: two layers each, patches of 8 of 32 pixels, 32 tokens."""
    random = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(*shape, generator=random)

    state: dict[str, torch.Tensor] = {"temp": torch.tensor(0.01)}
    for tower, width in (("vision_encoder", 128), ("text_encoder", 64)):
        for n in range(2):
            at = f"{tower}.transformer.resblocks.{n}"
            state |= {
                f"{at}.attn.in_proj_weight": draw(3 * width, width) / 4,
                f"{at}.attn.in_proj_bias": draw(3 * width),
                f"{at}.attn.out_proj.weight": draw(width, width) / 4,
                f"{at}.attn.out_proj.bias": draw(width),
                f"{at}.mlp.c_fc.weight": draw(4 * width, width) / 4,
                f"{at}.mlp.c_fc.bias": draw(4 * width),
                f"{at}.mlp.c_proj.weight": draw(width, 4 * width) / 4,
                f"{at}.mlp.c_proj.bias": draw(width),
            }
            for norm in ("ln_1", "ln_2"):
                state |= {f"{at}.{norm}.weight": 1 + draw(width), f"{at}.{norm}.bias": draw(width)}
    for norm, width in (
        ("vision_encoder.ln_pre", 128),
        ("vision_encoder.ln_post", 128),
        ("text_encoder.ln_final", 64),
    ):
        state |= {f"{norm}.weight": 1 + draw(width), f"{norm}.bias": draw(width)}
    return state | {
        "vision_encoder.conv1.weight": draw(128, 3, 1, 8, 8),
        "vision_encoder.class_embedding": draw(128),
        "vision_encoder.positional_embedding": draw(17, 128),
        "vision_encoder.temporal_positional_embedding": draw(1, 8, 128),
        "vision_encoder.proj": draw(128, 24),
        "text_encoder.token_embedding.weight": draw(514, 64),
        "text_encoder.positional_embedding": draw(32, 64),
        "text_encoder.text_projection": draw(64, 24),
    }


def spread(model: torch.nn.Module) -> None:
    """Random weights as they are initialised give nearly the same for any input."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
