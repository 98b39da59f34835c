"""Text to token states as Wan was trained: the encoder of UMT5-XXL, frozen."""

from __future__ import annotations

import html
import re
from typing import Any

from model.encoders.t5 import FlanT5, Precision


class UMT5(FlanT5):
    """Hidden states of a UMT5 encoder, the closing </s> included, as diffusers' `WanPipeline` takes them.

    An empty text is its </s> alone. Texts are cleaned as there: mended by ftfy, entities unescaped, white
    space joined. Arguments as `FlanT5`'s; `subfolder` and `tokenizer` are folders
    of the path, where they exist.
    """

    model_type = "umt5"
    closing = True

    def __init__(
        self,
        path: str = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        revision: str | None = None,
        width: int = 4096,
        dtype: Precision = "bfloat16",
        max_tokens: int = 511,
        batch_tokens: int = 2048,
        subfolder: str | None = "text_encoder",
        tokenizer: str | None = "tokenizer",
    ) -> None:
        super().__init__(path, revision, width, dtype, max_tokens, batch_tokens)
        self.subfolder, self.tokenizer_folder = subfolder, tokenizer

    @staticmethod
    def _model_class() -> Any:
        from transformers import UMT5EncoderModel

        return UMT5EncoderModel

    def _ids(self, text: str) -> list[int]:
        return super()._ids(clean(text))


def clean(text: str) -> str:
    """A prompt as `WanPipeline` cleans it (diffusers, `prompt_clean`)."""
    import ftfy  # takes a tenth of a second, and only these encoders need it

    text = ftfy.fix_text(text)
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text)).strip()).strip()
