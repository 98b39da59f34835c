"""An OpenAI-compatible endpoint on this machine, which answers well or badly."""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar


class Answers(BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint: JSON with the fields that the prompt asks for, or what `mode` says."""

    mode = ""
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append(request)
        if self.mode == "hang":
            time.sleep(3)
        if self.mode in ("401", "404", "500"):
            return self._send(int(self.mode), {"error": {"message": "no"}})
        prompt = request["messages"][-1]["content"][-1]["text"]
        fields = re.findall(r'"(\w+)"', prompt.rpartition("with the fields")[2].partition(", and nothing")[0])
        answer: dict[str, Any] = {f: f"The {f.replace('_', ' ')} in words." for f in fields}
        if "objects" in answer:
            named = self.mode.partition("names ")[2]
            answer["objects"] = json.loads(named) if named else ["person", "red ball"]
        if "size" in answer:
            answer["size"] = "Larger."
        text = {
            "prose": "It is a nice video.",
            "refusal": "I'm sorry, but I can't help with that.",
            "nothing": "",
            "wrong": json.dumps({"foo": 1}),
            "draft": f"I think {{'a': 1}}, or {json.dumps({'a': 1})}. So: {json.dumps(answer)}. Done.",
            "fenced": f"Here it is:\n```json\n{json.dumps(answer)}\n```",
        }.get(self.mode, json.dumps(answer))
        message: dict[str, Any] = {"role": "assistant", "content": text}
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": message}
        if request.get("logprobs"):
            spoken = {"prose": "nice", "words": "Grade: 8/10", "nothing": ""}
            message["content"] = spoken.get(self.mode, self.mode.partition("says ")[2] or "7")
            options = [
                {"token": t, "logprob": math.log(p), "bytes": None} for t, p in (("7", 0.75), ("9", 0.25))
            ]
            if self.mode in ("", "fenced"):
                first = {**options[0], "top_logprobs": options}
                choice["logprobs"] = {"content": [first], "refusal": None}
        return self._send(
            200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        )

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
