"""Published weights that an editor can be made of: what they are, and what they need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from model.inference.pretrained import weight_shapes
from model.net.wan_config import WanConfig
from model.sequence.rope import RopeConfig

# parameters, counted on transformers' and diffusers' own classes with the published sizes
UMT5_XXL = 5_680_910_336
AUTOENCODERS = {16: 126_892_531, 48: 704_688_668}  # by latent channels: Wan 2.1's, Wan 2.2 TI2V's
SPATIAL = {16: 8, 48: 16}  # pixels per latent position, of the same
SMALL = WanConfig()
LARGE = WanConfig(width=5120, heads=40, hidden=13824, depth=40, boundary=0.875)
PHASES = RopeConfig(source=True)


@dataclass(frozen=True)
class Base:
    """Weights on the model hub.

    Attributes:
        name: as in `configs/train`.
        repository: `owner/name` on the hub.
        licence: of the weights.
        config: sizes of the transformer.
        use: what it does without further training.
    """

    name: str
    repository: str
    licence: str
    config: WanConfig
    use: str

    @property
    def parameters(self) -> int:
        """Weights of the transformer, both where there are two."""
        return sum(shape.numel() for shape in weight_shapes(self.config).values())

    @property
    def edit_gib(self) -> float:
        """GiB of all weights in an edit: transformer and text encoder in bfloat16, autoencoder in float32.

        By arithmetic, without what is computed from them.
        """
        autoencoder = AUTOENCODERS[self.config.vision_dim // 4]
        return (2 * (self.parameters + UMT5_XXL) + 4 * autoencoder) / 2**30

    @property
    def spatial(self) -> int:
        """Pixels per latent position of its autoencoder, along height and width."""
        return SPATIAL[self.config.vision_dim // 4]

    def is_cached(self) -> bool:
        """Whether the transformer is in this machine's cache of the hub."""
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(self.repository, "transformer/config.json"), str)


def bases() -> Iterator[Base]:
    """The weights that this project knows how to read, in the order of its advice."""
    small, large = (replace(c, rope=PHASES, source_time="target") for c in (SMALL, LARGE))
    edits = "edits, references"
    yield Base("bernini_r_1.3b", "ByteDance/Bernini-R-1.3B-Diffusers", "Apache-2.0", small, edits)
    yield Base("wan2.1_1.3b", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Apache-2.0", SMALL, "text to video")
    five = WanConfig(vision_dim=192, width=3072, heads=24, hidden=14336)
    yield Base("wan2.2_5b", "Wan-AI/Wan2.2-TI2V-5B-Diffusers", "Apache-2.0", five, "text or image to video")
    yield Base("wan2.2_a14b", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "Apache-2.0", LARGE, "text to video")
    yield Base("bernini_r_a14b", "ByteDance/Bernini-R-Diffusers", "Apache-2.0", large, edits)
