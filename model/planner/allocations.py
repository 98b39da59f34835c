"""The most memory that a training step has allocated at a time, found by a step without numbers.

The network's own code runs forward and backward on PyTorch's fake tensors, which have shapes, dtypes and
lifetimes but no memory; what is alive is added up. So it takes seconds for a transformer of any size, and
what is counted follows the code: autocast's copies, what is computed again, gradients as they come and go.
What a kernel allocates inside itself is not seen.
"""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.extras.config import ExtrasConfig
from model.inference.lora import LoraConfig, add_adapter
from model.net.activation_checkpointing import Checkpointing, prepare_blocks
from model.net.families import build_transformer
from model.net.frozen_linear import codes_of, count_weights
from model.net.transformer import Transformer
from model.net.wan_config import WanConfig
from model.planner.flops import Sizes
from model.sequence.interleave import SequenceConfig, TextElement, VisionElement, build_sequence
from model.sequence.packing import PackedBatch, pack

WORDS = 20  # of the prompt
MOMENT_BLOCK = 256  # weights of a row whose moments in 8 bits share a scale
SMALL = 4096  # weights, fewer than which have moments in 32 bits
# positions of the pack that the network asks for as numbers, so that they must have some
REAL = ("target_segment", "target_of", "cu_seqlens", "cu_noisy", "cu_context", "cu_words", "cu_visible")


@dataclasses.dataclass(frozen=True)
class Allocations:
    """Bytes of a forward and a backward pass.

    Attributes:
        weights: of the network; trained: of those weights that get gradients.
        peak: the most that is alive at a time: weights, gradients, activations and what is passing.
    """

    weights: int
    trained: int
    peak: int


class _Live(TorchDispatchMode):
    """Adds up the storages that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def add(self, tensors: Iterable[Any]) -> None:
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            place, size = storage._cdata, storage.nbytes()
            if place not in self.known:
                self.known.add(place)
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._drop, place, size)

    def _drop(self, place: int, size: int) -> None:
        self.known.discard(place)
        self.now -= size

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.add(tree_leaves(result))
        return result


def step_allocations(
    config: Sizes,
    tokens: int,
    checkpointing: Checkpointing,
    mixed: bool = True,
    accumulated: bool = True,
    lora: LoraConfig | None = None,
    extras: ExtrasConfig | None = None,
) -> Allocations:
    """Allocations of a micro-batch of one sequence, half source and half target, weights in float32.

    Args:
        config: with `text_dim` and `vision_dim`; attention is SDPA's, which keeps no scores, as kernels on a
            GPU.
        tokens: of the sequence, at least 4 beyond the text's.
        mixed: under autocast to bfloat16; else float32.
        accumulated: gradients of an earlier micro-batch are there already.
        lora: train an adapter; all other weights are frozen.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    live = _Live()
    network = _on_meta(dataclasses.replace(config, attention="sdpa"), lora, extras)
    _place(network, fake)
    live.add(network.parameters())
    weights = live.now
    trained = [p for p in network.parameters() if p.requires_grad]
    prepare_blocks(network, checkpointing, compiled=False)
    batch = _batch(config, tokens, fake, live)
    if accumulated:
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
            live.add([parameter.grad])
    with live:
        _forward_backward(network, batch, mixed)
    return Allocations(weights, sum(p.numel() * p.element_size() for p in trained), live.peak)


@dataclasses.dataclass(frozen=True)
class WeightBytes:
    """Bytes of a network's weights, as they are kept.

    Attributes:
        blocks, others: in the blocks, and outside them; without `replicated`.
        blocks_half: in the blocks when they are gathered in bf16; largest_half: of a block.
        replicated: of int8 and nf4, which are not shared out.
        largest: of a block.
        trained_blocks, trained_others, trained_largest: of these those that are trained.
        moments8: both moments of what is trained, in 8 bits; largest_moments8: of a block.
    """

    blocks: int
    blocks_half: int
    others: int
    replicated: int
    largest: int
    largest_half: int
    trained_blocks: int
    trained_others: int
    trained_largest: int
    moments8: int
    largest_moments8: int


@functools.lru_cache(maxsize=32)
def weight_bytes(
    config: Sizes, lora: LoraConfig | None = None, extras: ExtrasConfig | None = None
) -> WeightBytes:
    """What `WeightBytes` says, of a network without numbers."""
    network = _on_meta(config, lora, extras)
    replicated = codes_of(network)

    def size(module: nn.Module, trained: bool = False) -> int:
        chosen = [p for p in module.parameters() if p not in replicated and (p.requires_grad or not trained)]
        return sum(p.numel() * p.element_size() for p in chosen)

    def half(module: nn.Module) -> int:
        return 2 * sum(p.numel() for p in module.parameters() if p not in replicated)

    def moments(module: nn.Module) -> int:
        return sum(moment_bytes(p) for p in module.parameters() if p.requires_grad)

    blocks = list(network.blocks)
    whole, trained = sum(map(size, blocks)), sum(size(block, True) for block in blocks)
    return WeightBytes(
        blocks=whole,
        blocks_half=sum(map(half, blocks)),
        others=size(network) - whole,
        replicated=sum(p.numel() * p.element_size() for p in replicated),
        largest=max(map(size, blocks)),
        largest_half=max(map(half, blocks)),
        trained_blocks=trained,
        trained_others=size(network, True) - trained,
        trained_largest=max(size(block, True) for block in blocks),
        moments8=moments(network),
        largest_moments8=max(map(moments, blocks)),
    )


def eight_bit_blocks(shape: torch.Size) -> int:
    """Blocks per row of a weight whose moments `adamw8bit` keeps in 8 bits; 0 where it does not."""
    columns = shape[1:].numel() if len(shape) > 1 else 0
    return 0 if shape.numel() < SMALL or columns % MOMENT_BLOCK else columns // MOMENT_BLOCK


def moment_bytes(weight: Tensor) -> int:
    """Both moments of a weight under `adamw8bit`, with their scales."""
    blocks = eight_bit_blocks(weight.shape)
    return 2 * (weight.numel() + 4 * len(weight) * blocks) if blocks else 8 * weight.numel()


@functools.lru_cache(maxsize=32)
def parameter_counts(
    config: Sizes, lora: LoraConfig | None = None, extras: ExtrasConfig | None = None
) -> tuple[int, int]:
    """Weights in all, an adapter's included, and those of them that are trained."""
    network = _on_meta(config, lora, extras)
    return count_weights(network), sum(p.numel() for p in network.parameters() if p.requires_grad)


def _on_meta(config: Sizes, lora: LoraConfig | None, extras: ExtrasConfig | None) -> Transformer:
    """A network without numbers."""
    with torch.device("meta"):
        network = build_transformer(config, extras)
        if lora is not None:
            add_adapter(network, lora)
    return network


def _place(network: Transformer, fake: FakeTensorMode) -> None:
    """Give a network of the meta device weights that pass for the CPU's, where autocast works."""
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            with fake:
                value = torch.empty(weight.shape, dtype=weight.dtype)
            module.register_parameter(name, nn.Parameter(value, requires_grad=weight.requires_grad))


def layout_of(config: Sizes) -> SequenceConfig:
    """How a network's sequences are laid out, at one latent position per token."""
    if not isinstance(config, WanConfig):
        return SequenceConfig(patch=1)
    return SequenceConfig(patch=1, text="both" if config.words else "cross_attention", first_axis="source")


def texts_for(layout: SequenceConfig, states: Tensor) -> list[TextElement]:
    """The same words as prompt, among the tokens, or both."""
    prompts = [True] * layout.has_prompt + [False] * layout.has_words
    return [TextElement(states, prompt=prompt) for prompt in prompts]


def _batch(config: Sizes, tokens: int, fake: FakeTensorMode, live: _Live) -> PackedBatch:
    """One sequence, of fake tensors but for those that say where it lies."""
    layout = layout_of(config)
    vision = tokens - WORDS - 4 if layout.has_words else tokens  # with the bounds of two media
    # a frame of one token, so that any number of tokens is to be had
    media = [torch.zeros(n, 1, 1, config.vision_dim) for n in (vision // 2, vision - vision // 2)]
    source, target = VisionElement("video1", media[0]), VisionElement("video2", media[1], target=True)
    words = torch.zeros(WORDS, config.text_dim)
    batch = pack([build_sequence([source, *texts_for(layout, words), target], layout)])

    def faked(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        tensor = fake.from_tensor(value)
        live.add([tensor])
        return tensor

    changes = {f.name: faked(getattr(batch, f.name)) for f in dataclasses.fields(batch) if f.name not in REAL}
    if batch.prompt is not None:
        changes["prompt"] = dataclasses.replace(batch.prompt, states=faked(batch.prompt.states))
    return dataclasses.replace(batch, **changes)


def _forward_backward(network: Transformer, batch: PackedBatch, mixed: bool) -> None:
    """As a step of the training: the noisy copy of the tokens, a squared error per target token."""
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        clean = batch.vision.index_select(0, batch.target_vision)
        noise = torch.empty_like(clean)
        vision = batch.vision.index_copy(0, batch.target_vision, torch.lerp(noise, clean, 0.5))
        timestep = torch.full((batch.segments,), 0.5)
        outputs = network(batch, vision, timestep)
        losses = [(out.float() - (clean - noise)).square().mean(1) for out in outputs]
        torch.stack(losses).mean().backward()
