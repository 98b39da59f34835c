"""Questions to an endpoint in the forms of published evaluation programs: words first, nothing added.

Numbers of such a program compare only with what was asked in its own form, down to the order of the parts.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from curation.vlm.endpoint import Completion, Count, Endpoint, printable
from curation.vlm.interface import NoAnswerError


class Part(BaseModel):
    """A piece of what was said."""

    type: str = ""
    text: str | None = None


class Output(BaseModel):
    """A message, or what else a response holds."""

    type: str = ""
    content: list[Part] | None = None


class Spent(BaseModel):
    """Tokens."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None


class Response(BaseModel):
    """An answer of the Responses API, as far as it is read."""

    output: list[Output]
    usage: Spent | None = None


def data_url(file: bytes, kind: str) -> str:
    """A file inside a request; `kind` is its media type, such as image/jpeg."""
    return f"data:{kind};base64,{base64.b64encode(file).decode()}"


def respond(endpoint: Endpoint, text: str, pictures: Sequence[str] = ()) -> str:
    """Asks by the Responses API at temperature 0, without any limit of tokens.

    Args:
        pictures: data URLs.

    Raises:
        NoAnswerError: nothing was said.
    """
    content: list[dict[str, Any]] = [{"type": "input_text", "text": text}]
    content += [{"type": "input_image", "image_url": url} for url in pictures]
    create = endpoint.client.responses.with_raw_response.create
    asked = [{"role": "user", "content": content}]
    body, new = endpoint.sent(create, temperature=0, model=endpoint.model, input=asked)
    answer = endpoint.checked(Response, body, "response")
    if answer.usage is not None and new:
        endpoint.count(answer.usage.input_tokens or 0, answer.usage.output_tokens or 0)
    parts = [p for one in answer.output if one.type == "message" for p in one.content or []]
    if refused := [p for p in parts if p.type == "refusal"]:
        raise NoAnswerError(f"{endpoint.model}: refused to answer ({len(refused)} times)", "refusal")
    said = "".join(p.text or "" for p in parts if p.type == "output_text")
    return _something(endpoint, said)


def complete(endpoint: Endpoint, text: str, pictures: Sequence[str] = ()) -> str:
    """Asks by chat completions with the server's own defaults; see `respond`."""
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    content += [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
    create = endpoint.client.chat.completions.with_raw_response.create
    asked = [{"role": "user", "content": content}]
    body, new = endpoint.sent(create, model=endpoint.model, stream=False, messages=asked)
    answer = endpoint.checked(Completion, body, "chat completion")
    if answer.usage is not None and new:
        endpoint.count(answer.usage.prompt_tokens or 0, answer.usage.completion_tokens or 0)
    message = answer.choices[0].message if answer.choices else None
    if message is not None and message.refusal:
        raise NoAnswerError(f"{endpoint.model}: refused to answer", "refusal")
    return _something(endpoint, (message.content if message else None) or "")


def _something(endpoint: Endpoint, said: str) -> str:
    """What was said. Raises NoAnswerError for nothing."""
    if not said.strip():
        raise NoAnswerError(f"{endpoint.model}: answered nothing", "answer")
    return printable(said)
