"""Who rewrites instructions for `editverse edit --enhance`: Qwen-VL, or a model behind an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from curation.vlm.client import Answer, ask_json
from curation.vlm.endpoint import Endpoint
from curation.vlm.interface import Vlm
from curation.vlm.qwen_vl import QwenVl, release
from model.inference.enhance import MAX_CHARACTERS, Enhancer
from shards.errors import SettingError


class Rewritten(Answer):
    """The answer that is asked for."""

    instruction: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS, pattern=r"^[^<>{}]*$")]


def make_enhancer(where: str, model: str | None) -> Enhancer:
    """An enhancer that asks until an answer fits, three times at most.

    Args:
        where: a folder or hub id of Qwen2-VL, Qwen2.5-VL or Qwen3-VL, whose weights leave the memory after
            each answer, or the URL of an OpenAI-compatible endpoint, up to /v1.
        model: its name at the endpoint.

    Raises:
        SettingError: an endpoint without a model's name, or the other way round.
        AssetError: no such checkpoint, or a package is missing.
    """
    remote = where.startswith(("http://", "https://"))
    if remote != (model is not None):
        raise SettingError(
            f"--enhance {where}: an endpoint needs --enhance_model, the model's name there"
            if remote
            else f"--enhance_model {model}: is for an endpoint; --enhance {where} is no URL"
        )
    vlm: Vlm = Endpoint(where, model or "") if remote else QwenVl(where)
    vlm.describe()

    def enhance(media: Sequence[np.ndarray], question: str) -> str:
        try:
            return ask_json(vlm, media, question, Rewritten).instruction
        finally:
            if not remote:
                release()

    return enhance
