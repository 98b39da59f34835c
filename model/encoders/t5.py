"""Text to token states as in the paper: the encoder of Flan-T5-XXL (section 3.1), frozen.

Texts share rows under a block-diagonal mask, so no padding is computed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from model.encoders import hash_of_tokenizer
from shards.errors import SettingError
from shards.limits import MAX_WIDTH, in_range, shown

Precision = Literal["float32", "bfloat16", "float16"]


def pack_rows(lengths: list[int], most: int) -> list[list[int]]:
    """Indices of the texts of each row, longest first, each in the first row with room.

    A row holds at most `most` tokens; a longer text has a row of its own.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        row = next((r for r, left in enumerate(room) if left >= lengths[index]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(most)
        rows[row].append(index)
        room[row] -= lengths[index]
    return rows


def block_mask(lengths: list[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Additive mask [1, 1, L, L] of a row: 0 inside a text, the lowest number of `dtype` between texts.

    It is a number and not a bool because eager attention adds what it is given, bools included.
    """
    text = torch.repeat_interleave(torch.tensor(lengths, device=device), output_size=sum(lengths))
    apart = text[:, None] != text[None]
    return torch.zeros(apart.shape, dtype=dtype, device=device).masked_fill_(apart, torch.finfo(dtype).min)[
        None, None
    ]


class FlanT5:
    """Hidden states of a Flan-T5 encoder, read on first use.

    T5 sees position only as the distance between two tokens, so texts laid end to end in one row keep the
    states that they have alone, up to floating-point order, while a mask keeps them apart.

    Args:
        path: folder or hub id with config.json, safetensors and the tokenizer; pickled weights are refused.
        revision: of the hub's repository.
        width: numbers per token; compared with the weights when they are read.
        dtype: of the weights and the computation; the states are float32.
        max_tokens: longer texts are refused, not cut.
        batch_tokens: most tokens in a row, whose attention bias takes heads x batch_tokens ** 2 numbers.
    """

    light = False
    model_type = "t5"
    closing = False  # whether the state of the closing </s> is kept, which makes an empty text one token
    subfolder: str | None = None
    tokenizer_folder: str | None = None

    def __init__(
        self,
        path: str = "google/flan-t5-xxl",
        revision: str | None = None,
        width: int = 4096,
        dtype: Precision = "bfloat16",
        max_tokens: int = 512,
        batch_tokens: int = 2048,
    ) -> None:
        if dtype not in get_args(Precision):
            raise SettingError(f"text encoder dtype: one of {', '.join(get_args(Precision))}, got {dtype!r}")
        if not isinstance(path, str) or not path:
            raise SettingError(f"text encoder path: a folder or a hub id, got {shown(path)}")
        sizes = {"width": width, "max_tokens": max_tokens, "batch_tokens": batch_tokens}
        for name, size in sizes.items():
            if type(size) is not int:
                raise SettingError(f"text encoder {name}: a whole number, got {shown(size)}")
            in_range(f"text encoder {name}", size, 1, MAX_WIDTH)
        self.path, self.revision, self.width, self.dtype = path, revision, width, dtype
        self.max_tokens, self.batch_tokens = max_tokens, batch_tokens
        self._device = torch.device("cpu")
        self._loaded: Any = None
        self._tokenizer: Any = None

    def to(self, device: torch.device | str) -> Self:
        """This encoder with its weights, read or yet to be read, on `device`."""
        self._device = torch.device(device)
        if self._loaded is not None:
            self._loaded.to(self._device)
        return self

    def release(self) -> None:
        """Drop the weights; they are read again on the next use."""
        self._loaded = None

    def _refusal(self, reason: str) -> ValueError:
        return SettingError(f"text encoder: {self.path} {reason}")

    def _unreadable(self, error: Exception) -> Exception:
        """What to say when transformers cannot read the path."""
        reason = str(error).strip().partition("\n")[0]
        if isinstance(error, OSError) and not Path(self.path).is_dir():
            return FileNotFoundError(
                f"text encoder: {self.path} is no folder here, and not (or not whole) in the local cache of "
                f"the model hub: give its folder, or run `hf download {self.path}` first ({reason})"
            )
        return self._refusal(f"cannot be read: {reason} (needed: config.json, safetensors, tokenizer)")

    def _check(self, config: Any, tokenizer: Any) -> None:
        """Raise ValueError unless they are a T5 of this width and a tokenizer of its vocabulary."""
        if config.model_type != self.model_type:
            raise self._refusal(f"holds a {config.model_type} model, not {self.model_type}")
        if config.d_model != self.width:
            raise self._refusal(
                f"is {config.d_model} wide, not {self.width}: set width to that of the weights"
            )
        # Where no tokenizer is stored, transformers makes one up, of special tokens and the space.
        words = len(tokenizer) - len(tokenizer.added_tokens_decoder)
        if words < 2 or len(tokenizer) > config.vocab_size:
            raise self._refusal(
                f"holds no tokenizer of these weights: {words} words and {len(tokenizer)} tokens, where the "
                f"weights have {config.vocab_size}"
            )
        if tokenizer("")["input_ids"] != [tokenizer.eos_token_id]:
            raise self._refusal("holds a tokenizer that does not close a text with </s> and nothing else")

    @staticmethod
    def _model_class() -> Any:
        from transformers import T5EncoderModel

        return T5EncoderModel

    def _place(self, subfolder: str | None) -> dict[str, Any]:
        """Where transformers finds a part: a folder of the path, or the path itself where there is none."""
        flat = subfolder and Path(self.path).is_dir() and not Path(self.path, subfolder).is_dir()
        return {
            "pretrained_model_name_or_path": self.path,
            "revision": self.revision or "main",
            "subfolder": "" if flat or not subfolder else subfolder,
        }

    def _read_tokenizer(self) -> Any:
        """The tokenizer, without the weights; raises as `_load`."""
        if self._tokenizer is None:
            from transformers import AutoConfig, AutoTokenizer

            try:
                config = AutoConfig.from_pretrained(**self._place(self.subfolder))
                tokenizer = AutoTokenizer.from_pretrained(**self._place(self.tokenizer_folder))
            except (OSError, ValueError) as error:
                raise self._unreadable(error) from error
            self._check(config, tokenizer)
            self._tokenizer = tokenizer
        return self._tokenizer

    def _load(self) -> Any:
        """The network; raises FileNotFoundError or ValueError saying what is wrong with the path."""
        if self._loaded is None:
            from safetensors import SafetensorError

            self._read_tokenizer()  # what is wrong with it is said before weights are read
            place = self._place(self.subfolder)
            options: dict[str, Any] = {"dtype": getattr(torch, self.dtype), "output_loading_info": True}
            try:
                read: Any = self._model_class().from_pretrained(**place, **options, use_safetensors=True)
            except (OSError, ValueError, RuntimeError, SafetensorError) as error:
                raise self._unreadable(error) from error
            model, report = read
            if missing := sorted(report["missing_keys"]):
                raise self._refusal(f"lacks {len(missing)} weights, the first is {missing[0]}")
            for name, weight in model.named_parameters():
                if not weight.isfinite().all():
                    raise self._refusal(f"is broken: the weights {name} are not finite")
            self._loaded = model.eval().requires_grad_(False).to(self._device)
        return self._loaded

    @torch.inference_mode(False)  # a caller's inference mode would leave its mark on weights and states
    @torch.no_grad()
    def encode(self, texts: list[str]) -> list[Tensor]:
        """One float32 [tokens, width] per text, on this encoder's device: the states of its own tokens.

        The closing </s> is seen by the encoder; its state is left out, unless `closing`. An empty text has no
        other tokens. Equal texts are encoded once and share a tensor. Raises ValueError when a text is longer
        than `max_tokens`.
        """
        states = dict.fromkeys(texts, torch.zeros(0, self.width, device=self._device))
        ids: dict[str, list[int]] = {}
        for text in states if self.closing else filter(None, states):
            ids[text] = self._ids(text)
            self._count(text, len(ids[text]))
        wanted = [text for text, tokens in ids.items() if len(tokens) > (not self.closing)]
        for row in pack_rows([len(ids[text]) for text in wanted], self.batch_tokens):
            names = [wanted[index] for index in row]
            lengths = [len(ids[name]) for name in names]
            hidden = self._run([token for name in names for token in ids[name]], lengths)
            for name, part in zip(names, hidden.split(lengths), strict=True):
                states[name] = part[: len(part) - (not self.closing)].to(torch.float32, copy=True)
        return [states[text] for text in texts]

    def count(self, texts: list[str]) -> list[int]:
        """Tokens that `encode` gives for each text. ValueError as `encode`."""
        own = (self._count(text, len(self._ids(text))) if text or self.closing else 0 for text in texts)
        return [count + self.closing for count in own]

    def tokenizer_hash(self) -> str:
        """See `TextEncoder`; how texts are cleaned goes with the class."""
        return hash_of_tokenizer(self._read_tokenizer(), self.model_type, self.closing)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._read_tokenizer()(text, verbose=False)["input_ids"]
        return ids

    def _count(self, text: str, length: int) -> int:
        """Its own tokens of so many, the last of which closes it."""
        if length - 1 > self.max_tokens:
            raise SettingError(
                f"text of {length - 1} tokens, at most {self.max_tokens} are taken: {text[:60]!r}"
            )
        return length - 1

    def _run(self, tokens: list[int], lengths: list[int]) -> Tensor:
        """States [L, width] of one row of texts of the given lengths."""
        model = self._load()
        return model(
            input_ids=torch.tensor([tokens], device=self._device),
            attention_mask=block_mask(lengths, model.dtype, self._device),
        ).last_hidden_state[0]
