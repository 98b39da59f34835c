"""A page on which people label samples: pairs in step, keep or drop with reasons, several people at once.

Every label is on disk before the next sample is shown; the page holds no state, so it can be left and opened
again at any time. Samples come in an order that looks random and is the same in every run.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from curation.quality.selection.labels import Label, LabelFile, choose_next
from shards.errors import SettingError
from shards.limits import parse_json
from shards.reports.pages import ASSETS, Samples, application, json_bytes, page, told
from shards.sample import explain

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

REASONS = (
    "object left over",
    "wrong object or place",
    "colour or light changed",
    "blurred or artefacts",
    "flickers or frozen",
    "not the instruction",
    "unsafe, text or watermark",
    "other",
)
MOST_REASONS = 8  # keys 2 to 9
MAX_BODY = 64 << 10  # bytes of what a page sends
BUSY = 600.0  # seconds for which a sample that was shown and not labelled counts as looked at
BODY = """<main>
<h1>Label samples</h1>
<form class="controls" id="who" aria-label="Who labels">
<label>Your name <input id="name" maxlength="60" autocomplete="off" required></label>
<button type="submit" id="start">Start</button>
<output id="progress" aria-live="polite"></output>
</form>
<p id="fault" class="bad" role="alert"></p>
<p id="help" class="quiet">1 keeps, 2 to 9 drop for that reason; with Shift, or "several", reasons are
collected and Enter drops. u takes the last one back, space plays, arrows step, m shows the mask.</p>
<div id="cards"></div>
<div id="answers" hidden>
<div id="buttons" role="group" aria-label="Keep or drop"></div>
<div class="bar"><label><input type="checkbox" id="several"> several</label>
<button type="button" id="drop" disabled>Drop (Enter)</button>
<button type="button" id="undo">Undo (u)</button></div>
</div>
</main>"""


@dataclass
class Labelling:
    """Samples, the file of their labels, and who looks at what; safe for several threads.

    Args:
        samples: of one folder or several. file: that labels are added to.
        reasons: at most eight, in the order of the keys 2 to 9.
        overlap: share of the samples that `people` label instead of one.
    """

    samples: Samples
    file: LabelFile
    reasons: Sequence[str] = REASONS
    overlap: float = 0.1
    people: int = 2
    _shown: dict[str, tuple[str, float]] = field(default_factory=dict)  # by person: sample, and since when
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if not 1 <= len(self.reasons) <= MOST_REASONS or len(set(self.reasons)) < len(self.reasons):
            raise SettingError(f"--reasons: 1 to {MOST_REASONS} different ones, for the keys 2 to 9")
        if not 0 <= self.overlap <= 1 or self.people < 1:
            raise SettingError(f"--overlap {self.overlap:g}, --people {self.people}: a share, and at least 1")
        keys = [key for shards in self.samples.sets for key in shards.keys]
        if len(set(keys)) < len(keys):
            raise SettingError("a key is in two of the folders; label them one after the other")
        ranks = {key: hashlib.sha256(key.encode()).digest() for key in keys}
        limit = round(self.overlap * (1 << 32))
        self._number = {key: number for number, key in enumerate(keys)}
        self._wanted = {
            key: self.people if int.from_bytes(ranks[key][-4:]) < limit else 1
            for key in sorted(keys, key=ranks.__getitem__)
        }

    def next_of(self, by: str) -> dict[str, Any]:
        """The sample that a person is to label now, the same until they did, and how far they are."""
        with self._lock:
            return self._next(by)

    def label(self, by: str, said: Any) -> dict[str, Any]:
        """Take a person's label of a sample; gives what `next_of` does.

        Raises:
            SettingError: it is no label, or of a sample that is not here.
        """
        label = self._read(by, said)
        with self._lock:
            self.file.add(label)
            self._shown.pop(by, None)
            return self._next(by)

    def undo(self, by: str) -> dict[str, Any]:
        """Take a person's last label back and show that sample again.

        Raises:
            SettingError: there is none.
        """
        with self._lock:
            last = self.file.labels.last_of(by)
            if last is None or last.key not in self._number:
                raise SettingError("there is nothing to take back")
            self.file.add(Label(key=last.key, keep=None, reasons=(), by=by))
            self._shown[by] = last.key, time.monotonic()
            return self._next(by)

    def _read(self, by: str, said: Any) -> Label:
        try:
            given = {name: said[name] for name in ("key", "keep")}
            label = Label.model_validate({**given, "reasons": tuple(said.get("reasons", ())), "by": by})
        except ValidationError as error:
            raise SettingError(f"no label: {explain(error)}") from None
        except (TypeError, KeyError, AttributeError):
            raise SettingError("no label: it has key, keep and reasons") from None
        if label.key not in self._number:
            raise SettingError(f"no sample {label.key!r} here")
        if label.keep is None or not set(label.reasons) <= set(self.reasons):
            raise SettingError("no label: keep is true or false, and reasons are those that are offered")
        if label.keep and label.reasons:
            raise SettingError("no label: reasons are for what is dropped")
        return label

    def _next(self, by: str) -> dict[str, Any]:
        now = time.monotonic()
        labels = self.file.labels
        busy: dict[str, set[str]] = {}
        for name, (looked_at, since) in self._shown.items():
            if now - since < BUSY and name != by:
                busy.setdefault(looked_at, set()).add(name)
        shown = self._shown.get(by)
        key = shown[0] if shown else choose_next(labels, self._wanted, by, busy)
        if key is not None:
            self._shown[by] = key, now
        done = sum(len(labels.votes.get(one, ())) >= wanted for one, wanted in self._wanted.items())
        mine = sum(by in labels.votes.get(one, ()) for one in self._wanted)
        number = None if key is None else self._number[key]
        return {
            "sample": None if number is None else told(number, self.samples.sample(number)),
            "mine": mine,
            "done": done,
            "total": len(self._wanted),
        }


def label_site(labelling: Labelling, hosts: Sequence[str] = ()) -> Starlette:
    """The site: its page, and what the page asks: `next`, `label` and `undo`, as JSON by POST."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import HTMLResponse, Response
    from starlette.routing import Route

    def index(request: Request) -> Response:
        return HTMLResponse(
            page(
                "Label samples",
                BODY,
                ("player.js", "cards.js", "label.js"),
                ("page.css", "label.css"),
            )
        )

    def reasons(request: Request) -> Response:
        return Response(json_bytes(list(labelling.reasons)), media_type="application/json")

    def answering(act: Any) -> Any:
        async def endpoint(request: Request) -> Response:
            said = await _body(request)
            answer = await run_in_threadpool(act, _name(said), said)
            return Response(json_bytes(answer), media_type="application/json")

        return endpoint

    routes = [
        Route("/", index),
        Route("/reasons", reasons),
        Route("/next", answering(lambda by, said: labelling.next_of(by)), methods=["POST"]),
        Route("/label", answering(labelling.label), methods=["POST"]),
        Route("/undo", answering(lambda by, said: labelling.undo(by)), methods=["POST"]),
    ]
    return application(labelling.samples, routes, hosts, (ASSETS, Path(__file__).parent / "assets"))


async def _body(request: Request) -> Any:
    """JSON that a page sent; SettingError for what is too large or none."""
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY:
            raise SettingError(f"a request may have {MAX_BODY} bytes")
    return parse_json(data, "the request")


def _name(said: Any) -> str:
    name = said.get("by") if isinstance(said, dict) else None
    if not isinstance(name, str) or not name.strip() or len(name) > 60 or not name.isprintable():
        raise SettingError("say your name first: 1 to 60 printable characters")
    return name.strip()
