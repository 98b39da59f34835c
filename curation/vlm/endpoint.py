"""A language model behind any OpenAI-compatible endpoint (vLLM, SGLang, a vendor)."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from curation.vlm import client, hub
from curation.vlm.client import LEAST_MASS, expected, sampled, spend
from curation.vlm.errors import AssetError
from curation.vlm.exchange import FROM_LOG, Log, current_question, transport
from curation.vlm.interface import AnnotatorError, Backend, NoAnswerError, Rating
from shards.errors import EditVerseError, first_line
from shards.limits import MAX_ANSWER, parse_json

DOWN = (502, 503, 504)  # what a proxy says of a server that is not there
Count = Annotated[int, Field(ge=0, le=1 << 40)]


M = TypeVar("M", bound=BaseModel)
JsonSchema = dict[str, Any]  # as pydantic makes it


class Option(BaseModel):
    """A token that the model might have said."""

    token: str
    logprob: Annotated[float, Field(le=1.0, allow_inf_nan=False)]


class Said(BaseModel):
    """A token that the model said, and what it might have said instead."""

    token: str
    top_logprobs: list[Option] = []


class Logprobs(BaseModel):
    """The tokens of an answer."""

    content: list[Said] | None = None


class Message(BaseModel):
    """What was said."""

    content: str | None = None
    refusal: str | None = None


class Choice(BaseModel):
    """One answer."""

    message: Message
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Usage(BaseModel):
    """What it took, in tokens."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None


class Completion(BaseModel):
    """A chat completion, as far as it is read: an endpoint may send anything."""

    choices: list[Choice]
    usage: Usage | None = None


class Endpoint:
    """The language model.

    Args:
        url: base URL of the endpoint, up to /v1.
        model: as the endpoint names it.
        key: name of the environment variable that holds the key; an endpoint without keys needs none.
        frames: pictures that a video without times is sampled to.
        pixels: of one frame of a video at most; larger ones are scaled down, since an endpoint takes every
            frame for a picture, without merging two as Qwen-VL does.
        tokens: of one answer at most.
        timeout: seconds of one request; retries: of one that failed.
        patience: seconds to wait for an endpoint that has answered before and is down now (it refuses
            connections, or says 502, 503 or 504), as while its server is started again.
        license: of the model, for the dry run.
        structured: the endpoint takes a JSON schema that its answers follow.
        prices: of a million tokens asked and answered, in whatever currency, to count what is spent.
        temperature: of the draw of an answer's tokens; 0 takes the likeliest. Repeats differ by their seeds.
    """

    code = (client,)

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
        patience: float = 900.0,
        pixels: int = 256 * 28 * 28,
        temperature: float = 0,
    ) -> None:
        self.temperature = temperature
        self.url, self.model, self.key, self.frames, self.tokens = url, model, key, frames, tokens
        self.timeout, self.retries, self.license = timeout, retries, license
        self.structured, self.prices, self.patience, self.pixels = structured, prices, patience, pixels
        self.log: Log | None = None  # that keeps requests and answers; whoever asks may set one
        self._has_answered = False  # one that never did is not waited for: its address is probably wrong

    def describe(self) -> Backend:
        """The model; where it runs is no part of what it says."""
        hub.package("openai")
        settings: dict[str, Any] = {"frames": self.frames, "tokens": self.tokens, "pixels": self.pixels}
        settings |= {"temperature": self.temperature} if self.temperature else {}
        return Backend("openai-endpoint", self.model, "", settings)

    @functools.cached_property
    def client(self) -> Any:
        """The client of the package `openai`, made at the first use."""
        import httpx

        openai = hub.package("openai")
        key = os.environ.get(self.key) or "none"
        return openai.OpenAI(
            base_url=self.url,
            api_key=key,
            timeout=self.timeout,
            max_retries=self.retries,
            http_client=httpx.Client(
                transport=transport(self.timeout, lambda: self.log, os.environ.get(self.key, "")),
                timeout=self.timeout,
                follow_redirects=True,
                max_redirects=3,
            ),
        )

    def ask(
        self,
        media: Sequence[np.ndarray],
        text: str,
        schema: JsonSchema | None = None,
        *,
        system: str = "",
        times: Sequence[Sequence[float]] = (),
    ) -> str:
        """Its answer, by a JSON schema if the endpoint takes one; see `Vlm`.

        Raises NoAnswerError when it is empty, or refused.
        """
        options: dict[str, Any] = {}  # keywords of the client's call
        if schema is not None and self.structured:
            whole = schema | {"required": [*schema["properties"]]}  # strict ones have no optional fields
            named = {"name": "answer", "strict": True, "schema": whole}
            options["response_format"] = {"type": "json_schema", "json_schema": named}
        messages = self._messages(media, text, system, times)
        choice = self._complete(messages, max_tokens=self.tokens, **options)
        told = printable(choice.message.content or "").strip()
        if choice.message.refusal or choice.finish_reason == "content_filter":
            kind = "filter" if choice.finish_reason == "content_filter" else "refusal"
            current_question().failed = kind  # who asks again in other words knows no kind
            raise NoAnswerError(f"{self.model}: refused to answer", kind)
        current_question().failed = ""
        if not told:
            raise NoAnswerError(f"{self.model}: answered nothing", "answer")
        if len(told) > MAX_ANSWER:
            raise AnnotatorError(f"{self.model}: answered {len(told)} characters, {MAX_ANSWER} are read")
        return told

    def rate(
        self,
        media: Sequence[np.ndarray],
        text: str,
        *,
        system: str = "",
        times: Sequence[Sequence[float]] = (),
    ) -> Rating:
        """The mean grade by the probabilities of all where the endpoint tells them, else its word."""
        messages = self._messages(media, text, system, times)
        choice = self._complete(messages, max_tokens=4, logprobs=True, top_logprobs=20)
        told = printable(choice.message.content or "")[:200].strip()
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
            if weights.sum() >= LEAST_MASS:  # else its words tell what it would say
                rating = expected(weights)
                return Rating(rating.value, rating.entropy, told)
        said = re.fullmatch(r"[^\d-]{0,20}?(10(?:\.0+)?|\d(?:\.\d+)?)(?:\s*/\s*10)?\W*", told)
        if not said:
            raise NoAnswerError(f"{self.model}: {told[:80]!r} holds no grade from 0 to 10")
        return Rating(float(said[1]), None, told)

    def _messages(
        self, media: Sequence[np.ndarray], text: str, system: str, times: Sequence[Sequence[float]]
    ) -> list[dict[str, Any]]:
        """The raw JSON of a conversation: the role, if any; then pictures, and videos as pictures with times.

        A video without times is sampled to `frames` pictures; of one with times all frames are sent.
        """
        content: list[dict[str, Any]] = []
        count = {3: 0, 4: 0}  # pictures and videos
        videos = any(one.ndim == 4 for one in media)
        for one in media:
            count[one.ndim] += 1
            if one.ndim == 3:
                labelled = [(f"Picture {count[3]}:", one)]
            elif times:
                seconds = times[count[4] - 1]
                labelled = [
                    (f"Video {count[4]}, {t:.2f} s:", frame) for t, frame in zip(seconds, one, strict=True)
                ]
            else:
                some = one[sampled(len(one), self.frames)]
                labelled = [(f"Video {count[4]}, {n} of {len(some)}:", f) for n, f in enumerate(some, 1)]
            for label, picture in labelled:
                if videos:
                    content.append({"type": "text", "text": label})
                if one.ndim == 4:
                    picture = _shrunk(picture, self.pixels)
                url = f"data:image/jpeg;base64,{_jpeg(picture)}"
                content.append({"type": "image_url", "image_url": {"url": url}})
        role = [{"role": "system", "content": system}] if system else []
        return [*role, {"role": "user", "content": [*content, {"type": "text", "text": text}]}]

    def _complete(self, messages: list[dict[str, Any]], **options: Any) -> Choice:
        # a repeat is another draw
        draw = {"temperature": self.temperature, "seed": current_question().repeat}
        create = self.client.chat.completions.with_raw_response.create
        body, new = self.sent(create, model=self.model, messages=messages, **draw, **options)
        answer = self.checked(Completion, body, "chat completion")
        if answer.usage is not None and new:
            self.count(answer.usage.prompt_tokens or 0, answer.usage.completion_tokens or 0)
        if not answer.choices:
            raise NoAnswerError(f"{self.model}: answered nothing", "answer")
        return answer.choices[0]

    def count(self, asked: int, answered: int) -> None:
        """Count tokens, and what they cost."""
        spend(prompt_tokens=asked, completion_tokens=answered)
        if self.prices is not None:  # tokens x price per million = millionths
            spend(cost_millionths=round(asked * self.prices[0] + answered * self.prices[1]))

    def sent(self, create: Callable[..., Any], **body: Any) -> tuple[bytes, bool]:
        """The body of the answer to a request by a method of the client, and whether it was sent just now.

        The client takes whatever comes for an answer, so the body is read, and is to be checked.
        """
        new = True
        try:
            with self._named():
                response = self._patiently(functools.partial(create, **body)).http_response
                self._has_answered, new = True, FROM_LOG not in response.headers
        finally:
            if new:
                spend(requests=1)
        content: bytes = response.content
        return content, new

    def checked(self, kind: type[M], body: bytes, what: str) -> M:
        """The body of an answer as what it should be. Raises AnnotatorError for anything else."""
        try:
            return kind.model_validate(parse_json(body.decode(errors="replace"), "the answer"))
        except (EditVerseError, ValidationError):
            start = body[:80].decode(errors="replace")
            raise AnnotatorError(f"{self.model}: answered {start!r}, which is no {what}", "answer") from None

    def _patiently(self, call: Callable[[], Any]) -> Any:
        """What `call` gives, called again while the endpoint is down, for as long as `patience` says."""
        openai = hub.package("openai")
        begin, wait = time.monotonic(), 1.0
        while True:
            try:
                return call()
            except openai.APIError as error:
                down = getattr(error, "status_code", None) in DOWN or _broken(error)
                left = self.patience - (time.monotonic() - begin)
                if not down or not self._has_answered or left <= 0:
                    raise
                if wait == 1.0:
                    print(f"{self.url}: is down; waiting up to {left:.0f} s for it", file=sys.stderr)
                time.sleep(min(wait, left))
                wait = min(2 * wait, 30.0)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """What ails the endpoint itself stops the run; what ails one request, that candidate."""
        openai = hub.package("openai")
        try:
            yield
        except openai.APITimeoutError:
            said = f"no answer within {self.timeout:g} s, {self.retries} retries"
            raise AnnotatorError(f"{self.model}: {said}", "timeout") from None
        except (openai.AuthenticationError, openai.PermissionDeniedError):
            raise AssetError(f"{self.url}: refuses the key in {self.key}; set the variable") from None
        except (openai.APIConnectionError, openai.NotFoundError) as error:
            if isinstance(error.__cause__, AnnotatorError):  # of the transport
                raise AnnotatorError(f"{self.model}: {error.__cause__}", "answer") from None
            if self._has_answered and _broken(error) and not _refused(error):
                raise AnnotatorError(f"{self.model}: {first_line(error)[:200]}", "transport") from None
            raise AssetError(
                f"{self.url}: no {self.model} there ({error}); start it, or correct url"
            ) from None
        except openai.APIError as error:
            raise AnnotatorError(f"{self.model}: {first_line(error)[:200]}", _kind(error)) from None


def _refused(error: Any) -> bool:
    """Whether nobody took the connection."""
    import httpx

    return isinstance(error.__cause__, httpx.ConnectError)


def _broken(error: Any) -> bool:
    """Whether a connection was refused, or ended before the answer did."""
    import httpx

    return isinstance(error.__cause__, httpx.NetworkError | httpx.RemoteProtocolError)


def _kind(error: Any) -> str:
    """Of the failure that a status of 400 or above tells."""
    status, told = getattr(error, "status_code", None) or 500, str(error).lower()
    if status == 429:
        return "quota" if "quota" in told else "busy"
    if status < 500:
        return "filter" if "content" in told and ("filter" in told or "policy" in told) else "request"
    return "server"


GRADES = {str(grade) for grade in range(11)}


def printable(text: str) -> str:
    """Text that can be written: halves of surrogate pairs become question marks."""
    return text.encode("utf-8", "replace").decode()


def _shrunk(picture: np.ndarray, pixels: int) -> np.ndarray:
    """A picture uint8 [H, W, 3] scaled down to about so many pixels, if it has more."""
    import cv2

    scale = math.sqrt(pixels / (picture.shape[0] * picture.shape[1]))
    if scale >= 1:
        return picture
    size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def _jpeg(picture: np.ndarray) -> str:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=92)
    return base64.b64encode(out.getvalue()).decode()
