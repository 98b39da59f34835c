"""A page to look through samples: by task, split, words and ranges of scores, sorted by a score.

What is searched are columns (`shards.columns`, `shards.scores`), so that a folder of a hundred thousand
samples is searched without reading any; those of the page that is looked at are read, and their media when
seen.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shards.errors import SettingError
from shards.reports.pages import Samples, application, json_bytes, page, told
from shards.scores import Scores, open_scores

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

PAGE_SIZE = 12  # samples on a page unless the asker says
LARGEST_PAGE = 100
BODY = """<main>
<h1>Samples</h1>
<form class="controls" id="search" aria-label="Search">
<label>Task <select id="task"><option value="">all</option></select></label>
<label>Split <select id="split"><option value="">all</option></select></label>
<label>Text <input type="search" id="text" placeholder="words or a key" autocomplete="off"></label>
<span id="ranges"></span>
<button type="button" id="add" title="Add a range of a score">+ score</button>
<label>Sort <select id="sort"><option value="">as stored</option></select></label>
<label>Order <select id="order"><option value="up">lowest first</option>
<option value="down">highest first</option></select></label>
</form>
<nav class="bar" aria-label="Pages">
<button type="button" id="previous" aria-label="Previous page">&lsaquo;</button>
<label>page <input type="number" id="page" min="1" value="1"></label> <span id="pages"></span>
<button type="button" id="following" aria-label="Next page">&rsaquo;</button>
<output id="found" aria-live="polite"></output>
</nav>
<div id="cards" class="grid"></div>
</main>"""


@dataclass(frozen=True)
class Query:
    """What is looked for; empty fields ask nothing.

    Attributes:
        text: words that must all be in a sample's text or key, whatever their case.
        ranges: (score, least or None, largest or None); a sample without the score is not in any range.
        sort: score to sort by; samples without it come last. descending: the highest first.
    """

    task: str = ""
    split: str = ""
    text: str = ""
    ranges: tuple[tuple[str, float | None, float | None], ...] = ()
    sort: str = ""
    descending: bool = False


class Catalogue:
    """Finds samples of several folders by what their columns say.

    Args:
        samples: the folders, opened.

    Attributes:
        scores: names of all scores.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self._scores: list[Scores] = [open_scores(one.location.folder) for one in samples.sets]
        self.scores = sorted({name for one in self._scores for name in one.names})
        self.find = functools.lru_cache(maxsize=32)(self._find)

    def labels(self) -> tuple[Counter[str], Counter[str]]:
        """Samples by task, and by split."""
        tasks, splits = Counter[str](), Counter[str]()
        for one in self.samples.sets:
            counts = one.columns.counts[one.shards].sum(axis=0)
            for label, count in zip(one.columns.labels, counts.tolist(), strict=True):
                tasks[label.task] += count
                splits[label.split] += count
        return tasks, splits

    def column(self, name: str) -> NDArray[np.float32]:
        """float32 [samples of all folders]: a score, NaN where a sample has none.

        Raises:
            SettingError: no folder has it.
        """
        if name not in self.scores:
            raise SettingError(f"no score {name!r}; there are {', '.join(self.scores) or 'none'}")
        return np.concatenate(
            [
                one.column(name) if name in one.stored else np.full(one.samples, np.nan, np.float32)
                for one in self._scores
            ]
        )

    def scores_of(self, number: int) -> dict[str, float | None]:
        """All scores of a sample that its folder has; None for null."""
        which = int(np.searchsorted(self.samples.ends, number, side="right"))
        place = number - (int(self.samples.ends[which - 1]) if which else 0)
        values = {name: float(self._scores[which].column(name)[place]) for name in self._scores[which].stored}
        return {name: None if math.isnan(value) else value for name, value in values.items()}

    def _find(self, query: Query) -> NDArray[np.int64]:
        chosen = np.concatenate([self._labelled(one, query) for one in self.samples.sets])
        for name, least, largest in query.ranges:
            values = self.column(name)
            chosen &= np.isfinite(values)
            if least is not None:
                chosen &= values >= np.float32(least)
            if largest is not None:
                chosen &= values <= np.float32(largest)
        words = query.text.lower().split()
        if words:
            self._worded(chosen, words)
        found = np.flatnonzero(chosen).astype(np.int64)
        if query.sort:
            values = self.column(query.sort)[found]
            order = np.argsort(-values if query.descending else values, kind="stable")  # NaN goes last
            found = found[order]
        return found

    @staticmethod
    def _labelled(shards: Any, query: Query) -> NDArray[np.bool_]:
        """Which samples of a folder have the task and split."""
        columns = shards.columns
        fits = np.array(
            [query.task in ("", one.task) and query.split in ("", one.split) for one in columns.labels], bool
        )
        kinds = [columns.kinds(shard) for shard in shards.shards.tolist()]
        return np.concatenate([fits[columns.label_of_kind[part]] for part in kinds])

    def _worded(self, chosen: NDArray[np.bool_], words: Sequence[str]) -> None:
        """Take out of those chosen the ones that lack a word."""
        start = 0
        for one in self.samples.sets:
            for shard in one.shards.tolist():
                count = len(one.columns.kinds(shard))
                here = chosen[start : start + count]
                if here.any():
                    both = one.columns.keys_and_texts(shard)
                    for place in np.flatnonzero(here).tolist():
                        said = " ".join(both[place]).lower()
                        here[place] = all(word in said for word in words)
                start += count


def query_of(asked: Mapping[str, str], ranges: Sequence[str]) -> Query:
    """A query out of a page's address; `ranges` are "NAME:LEAST:LARGEST", either of which may be empty.

    Raises:
        SettingError: a range is none.
    """
    parsed = []
    for text in ranges:
        name, *limits = text.rsplit(":", 2)
        if len(limits) != 2:
            raise SettingError(f"score {text[:80]!r}: a range is NAME:LEAST:LARGEST")
        parsed.append((name, _limit(limits[0], text), _limit(limits[1], text)))
    descending = asked.get("order", "up") == "down"
    fields = {name: asked.get(name, "") for name in ("task", "split", "text", "sort")}
    return Query(**fields, ranges=tuple(parsed), descending=descending)


def _limit(text: str, where: str) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SettingError(f"score {where[:80]!r}: {text[:20]!r} is no number")
    return value


def browser(samples: Samples, hosts: Sequence[str] = ()) -> Starlette:
    """The site: the page, what it asks, and media.

    Args:
        hosts: see `shards.reports.pages.application`.
    """
    from starlette.responses import HTMLResponse, Response
    from starlette.routing import Route

    catalogue = Catalogue(samples)

    def index(request: Request) -> Response:
        return HTMLResponse(page("Samples", BODY, ["player.js", "cards.js", "browse.js"]))

    def about(request: Request) -> Response:
        tasks, splits = catalogue.labels()
        value = {"samples": len(samples), "tasks": tasks, "splits": splits, "scores": catalogue.scores}
        return Response(json_bytes(value), media_type="application/json")

    def find(request: Request) -> Response:
        asked = request.query_params
        found = catalogue.find(query_of(asked, asked.getlist("score")))
        size = min(LARGEST_PAGE, max(1, _whole(asked, "size", PAGE_SIZE)))
        pages = max(1, -(-len(found) // size))
        number = min(pages, max(1, _whole(asked, "page", 1)))
        some = found[(number - 1) * size : number * size].tolist()
        value = {"total": len(found), "pages": pages, "page": number, "samples": [shown(n) for n in some]}
        return Response(json_bytes(value), media_type="application/json")

    def shown(number: int) -> dict[str, Any]:
        sample = samples.sample(number)
        return told(number, sample) | {"scores": dict(sample.scores) | catalogue.scores_of(number)}

    routes = [Route("/", index), Route("/api/about", about), Route("/api/find", find)]
    return application(samples, routes, hosts)


def _whole(asked: Mapping[str, str], name: str, default: int) -> int:
    text = asked.get(name, "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 12):
        raise SettingError(f"{name} {text[:20]!r}: is no whole number")
    return int(text) if text else default
