"""The text encoder's network: the states of transformers' class, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.encoders.bert import Bert
from shards.errors import SettingError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny BERT with random weights, as transformers writes it."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
    config = BertConfig(vocab_size=50, max_position_embeddings=12, **sizes)
    torch.manual_seed(0)
    model = BertModel(config, add_pooling_layer=False)
    for weight in model.parameters():  # its own start, norms and biases too, would hide a weight out of place
        torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(tmp_path)
    return tmp_path


def test_states_are_those_of_transformers(folder: Path) -> None:
    from transformers import BertModel

    theirs, ours = BertModel.from_pretrained(folder, add_pooling_layer=False).eval(), Bert.read(folder)
    for length in (1, 12):
        ids = torch.randint(50, (1, length), generator=torch.Generator().manual_seed(length))
        with torch.no_grad():
            wanted = theirs(input_ids=ids).last_hidden_state
        torch.testing.assert_close(ours(ids), wanted, atol=1e-5, rtol=1e-5)


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def _drop(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file({n: v for n, v in load_file(file).items() if n != name}, file)

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_config(hidden_act="relu"), "config.json: hidden_act is 'relu', only gelu is taken"),
        (_config(num_hidden_layers=10**9), "config.json: num_hidden_layers: a number from 1 to 1024"),
        (_config(num_attention_heads=None), "num_attention_heads is None, not a whole number"),
        (_config(num_attention_heads=3), "do not fit its config.json: embed_dim must be divisible"),
        (_config(intermediate_size=30), "do not fit its config.json: .*linear1.weight"),
        (_drop("encoder.layer.1.output.dense.bias"), "weight encoder.layer.1.output.dense.bias is missing"),
    ],
)
def test_what_is_no_such_model_is_refused(folder: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(folder)
    with pytest.raises(SettingError, match=words):
        Bert.read(folder)
