"""BERT (Devlin et al. 2019) for one text at a time, put together of PyTorch's own layers.

It gives what transformers' class gives (within 3e-6 of states of about 2), whose import alone takes longer
than a short edit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shards.errors import SettingError
from shards.limits import MAX_DEPTH, MAX_HEADS, MAX_WIDTH, in_range, read_json, shown

# What BERT has and PyTorch's layer is: the norm behind the residual, learned positions, this activation.
KIND = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
SIZES = {
    "hidden_size": MAX_WIDTH,
    "intermediate_size": MAX_WIDTH,
    "num_attention_heads": MAX_HEADS,
    "num_hidden_layers": MAX_DEPTH,
}
PARTS = {  # of a layer: PyTorch's name -> BERT's
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}


class Bert(nn.Module):
    """Token numbers in, states of the last layer out.

    Args:
        layers: how many, of `layer`.
        layer: with its sizes; norms come behind the residuals.
        embeddings: words [vocabulary, width], positions [longest, width], and the one kind of text [width].
        norm: weight and bias [width] of what is embedded, and epsilon.
    """

    def __init__(
        self,
        layer: nn.TransformerEncoderLayer,
        layers: int,
        embeddings: tuple[Tensor, Tensor, Tensor],
        norm: tuple[Tensor, Tensor, float],
    ) -> None:
        super().__init__()
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.words, self.positions, self.kind = embeddings
        self.norm_weight, self.norm_bias, self.epsilon = norm

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The model of a folder with config.json and model.safetensors, in float32.

        Raises:
            SettingError: it is no BERT, a size is missing or out of range, or a weight is missing or does not
                fit; the message names the file.
            OSError, safetensors.SafetensorError: a file is missing or damaged.
        """
        from safetensors.torch import load_file

        file, config = folder / "config.json", read_json(folder / "config.json")
        _check(file, config)
        weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
        width, inner, heads, depth = (config[name] for name in SIZES)
        epsilon = float(config.get("layer_norm_eps", 1e-12))
        try:
            with torch.device("meta"):  # sizes without memory, before the weights are known to fit
                layer = nn.TransformerEncoderLayer(
                    *(width, heads, inner, 0.0, F.gelu, epsilon), batch_first=True
                )
            words, positions, kinds, *norm = (
                weights[f"embeddings.{name}"]
                for name in (
                    "word_embeddings.weight",
                    "position_embeddings.weight",
                    "token_type_embeddings.weight",
                    "LayerNorm.weight",
                    "LayerNorm.bias",
                )
            )
            model = cls(layer, depth, (words, positions, kinds[0]), (norm[0], norm[1], epsilon))
            model.layers.load_state_dict(_layers(weights, depth), assign=True)
        except KeyError as error:
            raise SettingError(f"{file.parent}: no BERT: weight {error.args[0]} is missing") from error
        except (AssertionError, RuntimeError, IndexError) as error:
            first = str(error).splitlines()[:2][-1].strip()  # PyTorch lists every weight below a heading
            raise SettingError(f"{file.parent}: its weights do not fit its config.json: {first}") from error
        return model.eval().requires_grad_(False)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 [1, tokens] -> [1, tokens, width]."""
        x = F.embedding(ids, self.words) + self.kind + self.positions[: ids.shape[1]]
        x = F.layer_norm(x, x.shape[-1:], self.norm_weight, self.norm_bias, self.epsilon)
        states: Tensor = self.layers(x)
        return states


def _check(file: Path, config: Any) -> None:
    """SettingError unless the configuration is a BERT's."""
    if not isinstance(config, Mapping):
        raise SettingError(f"{file}: holds no settings")
    for name, kind in KIND.items():
        if config.get(name, kind) != kind:
            raise SettingError(f"{file}: {name} is {shown(config[name])}, only {kind} is taken")
    for name, most in SIZES.items():
        if type(config.get(name)) is not int:
            raise SettingError(f"{file}: {name} is {shown(config.get(name))}, not a whole number")
        in_range(f"{file}: {name}", config[name], 1, most)
    in_range(f"{file}: layer_norm_eps", config.get("layer_norm_eps", 1e-12), 0, 1)


def _layers(weights: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """BERT's weights by the names of PyTorch's encoder, in which queries, keys and values are one matrix."""
    state: dict[str, Tensor] = {}
    for number in range(depth):
        ours, theirs = f"layers.{number}", f"encoder.layer.{number}"
        for kind in ("weight", "bias"):
            qkv = [weights[f"{theirs}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
            state[f"{ours}.self_attn.in_proj_{kind}"] = torch.cat(qkv)
            for mine, name in PARTS.items():
                state[f"{ours}.{mine}.{kind}"] = weights[f"{theirs}.{name}.{kind}"]
    return state
