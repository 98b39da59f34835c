"""Operations of Wan's transformer by formula.

A prompt of L tokens is filled up with zeros to 512 (`WanConfig.text_tokens`), which are keys of the
attention to it. What is counted is what is computed here: the kernels `flash` and `varlen`, which training
on a GPU takes (`auto` counts as they do), attend to all 512; `sdpa` and `matmul` to L keys and one for the
padding. Keys and values themselves are projected for L tokens and the padding's one in either case.

With words among the tokens (`WanConfig.words`) the two attentions, to vision and to words, together meet as
many pairs as one attention to all.
"""

from __future__ import annotations

from model.net.wan_config import WanConfig
from model.planner.work import SINUSOIDS, Shape, Work


def prompt_keys(config: WanConfig, words: int) -> int:
    """Keys that each token meets in the attention to a prompt of `words` tokens."""
    if config.attention in ("sdpa", "matmul"):
        return min(words + 1, config.text_tokens)
    return config.text_tokens


def wan_blocks_work(config: WanConfig, tokens: int, pairs: int, words: int | None = None) -> Work:
    """All blocks, forward, on `tokens` tokens, whose queries meet `pairs` pairs of a query and a key.

    Args:
        words: tokens of the prompt; a full one when None, its own keys and values (no more than 512 rows)
            not counted.
    """
    width = config.width
    keys = config.text_tokens if words is None else prompt_keys(config, words)
    # self-attention has four projections, attention to the prompt two of the tokens
    linear = tokens * (6 * width * width + 2 * width * config.hidden)
    if words is not None:
        linear += words * 2 * width * width
    attention, prompts = (config.depth * 2 * width * n for n in (pairs, tokens * keys))
    return Work(linear=config.depth * linear, attention=attention, prompts=prompts)


def wan_padding_work(config: WanConfig) -> Work:
    """The zero row of all prompts of a pack: its embedding, and its key and value in every block."""
    width = config.width
    return Work(linear=width * width * (1 + 2 * config.depth), frozen=config.text_dim * width)


def wan_work(config: WanConfig, shape: Shape) -> Work:
    """One forward pass over a whole sequence; of two experts, one is run."""
    width = config.width
    rotation = Work(fixed=shape.total * len(config.rope.dims) * (sum(config.rope.dims) // 2))
    into = Work(
        # a time step's second layer and the six vectors of its modulation; the prompt's second layer
        linear=shape.segments * 7 * width * width + shape.text * width * width,
        frozen=width
        * (
            shape.segments * SINUSOIDS
            + (shape.text + shape.inline) * config.text_dim
            + shape.vision * config.vision_dim
        ),
    )
    blocks = wan_blocks_work(config, shape.total, shape.total**2, shape.text)
    return rotation + into + blocks + Work(linear=shape.target * width * config.vision_dim)
