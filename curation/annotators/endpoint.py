"""A language model behind any OpenAI-compatible endpoint (vLLM, SGLang, a vendor)."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from curation import checkpoints, vlm
from curation.assets import AssetError
from curation.ports import AnnotatorError, Backend, Rating
from curation.vlm import expected, sampled, spend


class Endpoint:
    """The language model.

    Args:
        url: base URL of the endpoint, up to /v1.
        model: as the endpoint names it.
        key: name of the environment variable that holds the key; an endpoint without keys needs none.
        frames: pictures that a video is sampled to.
        tokens: of one answer at most.
        timeout: seconds of one request; retries: of one that failed.
        license: of the model, for the dry run.
        structured: the endpoint takes a JSON schema that its answers follow.
        prices: of a million tokens asked and answered, in whatever currency, to count what is spent.
    """

    code = (vlm,)

    def __init__(
        self,
        url: str,
        model: str,
        key: str = "OPENAI_API_KEY",
        frames: int = 8,
        tokens: int = 512,
        timeout: float = 120.0,
        retries: int = 3,
        license: str = "as the endpoint's provider says",
        structured: bool = False,
        prices: tuple[float, float] | None = None,
    ) -> None:
        self.url, self.model, self.key, self.frames, self.tokens = url, model, key, frames, tokens
        self.timeout, self.retries, self.license = timeout, retries, license
        self.structured, self.prices = structured, prices

    def describe(self) -> Backend:
        """The model; where it runs is no part of what it says."""
        checkpoints.package("openai")
        settings = {"frames": self.frames, "tokens": self.tokens}
        return Backend("openai-endpoint", self.model, "", settings)

    @functools.cached_property
    def _client(self) -> Any:
        openai = checkpoints.package("openai")
        key = os.environ.get(self.key) or "none"
        return openai.OpenAI(base_url=self.url, api_key=key, timeout=self.timeout, max_retries=self.retries)

    def ask(self, media: Sequence[np.ndarray], text: str, schema: dict[str, Any] | None = None) -> str:
        """Its answer, by a JSON schema if the endpoint takes one.

        Raises AnnotatorError when it is empty, or refused.
        """
        options: dict[str, Any] = {}
        if schema is not None and self.structured:
            whole = schema | {"required": [*schema["properties"]]}  # strict ones have no optional fields
            named = {"name": "answer", "strict": True, "schema": whole}
            options["response_format"] = {"type": "json_schema", "json_schema": named}
        choice = self._complete(media, text, max_tokens=self.tokens, **options)
        told = (choice.message.content or "").strip()
        if getattr(choice.message, "refusal", None) or choice.finish_reason == "content_filter":
            raise AnnotatorError(f"{self.model}: refused to answer")
        if not told:
            raise AnnotatorError(f"{self.model}: answered nothing")
        return told

    def rate(self, media: Sequence[np.ndarray], text: str) -> Rating:
        """The mean grade by the probabilities of all where the endpoint tells them, else its word."""
        choice = self._complete(media, text, max_tokens=4, logprobs=True, top_logprobs=20)
        told = (choice.message.content or "").strip()
        listed = choice.logprobs.content if choice.logprobs and choice.logprobs.content else []
        if listed:
            weights = np.zeros(11)
            for option in listed[0].top_logprobs:
                if option.token.strip() in GRADES:
                    weights[int(option.token)] += math.exp(option.logprob)
            # a tokenizer that splits digits says 10 as 1 and 0
            if len(listed) > 1 and listed[0].token.strip() == "1":
                after = sum(math.exp(o.logprob) for o in listed[1].top_logprobs if o.token.strip() == "0")
                weights[10] += weights[1] * after
                weights[1] *= 1 - after
            if weights.sum() > 0:
                rating = expected(weights)
                return Rating(rating.value, rating.entropy, told)
        said = re.fullmatch(r"\D{0,20}?(10|\d)(?:\.\d+)?(?:\s*/\s*10)?\W*", told)
        if not said:
            raise AnnotatorError(f"{self.model}: {told[:80]!r} holds no grade from 0 to 10")
        return Rating(float(said[1]), None, told)

    def _complete(self, media: Sequence[np.ndarray], text: str, **options: Any) -> Any:
        pictures: list[np.ndarray] = []
        for one in media:
            pictures += [one] if one.ndim == 3 else list(one[sampled(len(one), self.frames)])
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{_jpeg(p)}"}}
            for p in pictures
        ]
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
        spend(requests=1)
        with self._named():
            answer = self._client.chat.completions.create(
                model=self.model, messages=messages, temperature=0, seed=0, **options
            )
        if isinstance(answer, str):  # the client hands on whatever is not JSON
            raise AnnotatorError(f"{self.model}: answered {answer[:80]!r}, which is no chat completion")
        if answer.usage is not None:
            told = answer.usage.prompt_tokens or 0, answer.usage.completion_tokens or 0
            spend(prompt_tokens=told[0], completion_tokens=told[1])
            if self.prices is not None:  # tokens x price per million = millionths
                spend(cost_millionths=round(sum(n * p for n, p in zip(told, self.prices, strict=True))))
        if not answer.choices:
            raise AnnotatorError(f"{self.model}: answered nothing")
        return answer.choices[0]

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """What ails the endpoint itself stops the run; what ails one request, that candidate."""
        openai = checkpoints.package("openai")
        try:
            yield
        except openai.APITimeoutError:
            raise AnnotatorError(
                f"{self.model}: no answer within {self.timeout:g} s, {self.retries} retries"
            ) from None
        except (openai.AuthenticationError, openai.PermissionDeniedError):
            raise AssetError(f"{self.url}: refuses the key in {self.key}; set the variable") from None
        except (openai.APIConnectionError, openai.NotFoundError) as error:
            raise AssetError(
                f"{self.url}: no {self.model} there ({error}); start it, or correct url"
            ) from None
        except openai.APIError as error:
            raise AnnotatorError(f"{self.model}: {str(error).splitlines()[0][:200]}") from None


GRADES = {str(grade) for grade in range(11)}


def _jpeg(picture: np.ndarray) -> str:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=92)
    return base64.b64encode(out.getvalue()).decode()
