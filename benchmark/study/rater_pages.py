"""The pages that a rater sees, and the files that they load."""

from __future__ import annotations

import functools
import hashlib
import mimetypes
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.core.item import Geometry
from benchmark.report.templating import environment
from benchmark.study.definition import StudyDefinition
from benchmark.study.records import Rater, Slot, Trial
from benchmark.study.texts import study_texts
from shards.media import probe
from shards.reports.pages import ASSETS

ROOM = Path(__file__).parent
SHARED = {"study.css": ASSETS / "page.css", "study.js": ASSETS / "player.js"}  # what stands before them
SLOTS: tuple[Slot, ...] = ("source", "left", "right")
# Texts that a script shows.
SCRIPT_TEXTS = (
    *("play", "pause", "loading", "locked", "unlocked", "unanswered", "sending", "waiting"),
    *("lost_session", "not_taken", "reload", "go_on"),
)
RETRY_SECONDS = 10  # until a page that could not be made asks again


@dataclass(frozen=True)
class StaticFile:
    """A file as it is sent; `tag` changes with its content."""

    content: bytes
    media_type: str
    tag: str


@functools.cache
def static_files() -> dict[str, StaticFile]:
    """What is under /static/, by name: the files of `static`, read once."""
    files = {}
    for path in sorted((ROOM / "static").iterdir()):
        content = path.read_bytes()
        if path.name in SHARED:
            content = SHARED[path.name].read_bytes() + b"\n" + content
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        files[path.name] = StaticFile(content, kind, hashlib.sha256(content).hexdigest()[:16])
    return files


def static_address(name: str) -> str:
    """Where a static file is; the address changes with its content, so that browsers may keep it."""
    return f"/static/{name}?v={static_files()[name].tag}"


@functools.lru_cache(maxsize=16384)
def clip_of(path: Path) -> Geometry:
    """Length, rate and size of a prepared video; MediaError where it cannot be read."""
    info = probe(path)
    return Geometry(info.frames, info.height, info.width, info.fps)


class RaterPages:
    """Makes the pages of a study, as HTML.

    Args:
        definition: of the study.
        folder: of the study; its own texts are used where it has some.
    """

    def __init__(self, definition: StudyDefinition, folder: Path) -> None:
        self.definition = definition
        self.texts = study_texts(folder, definition.language)
        self.templates = environment(ROOM / "templates")
        self.templates.globals |= {
            "texts": self.texts,
            "study": definition.name,
            "questions": definition.questions,
            "practice": definition.practice,
            "static": static_address,
            "script_texts": {name: self.texts[name] for name in SCRIPT_TEXTS},
        }

    def welcome(self, rater: Rater) -> str:
        """What the study asks, and how it works."""
        return self.templates.get_template("welcome.html").render(rater=rater)

    def pair(self, trial: Trial, clips: list[Geometry], csrf: str) -> str:
        """A comparison.

        Args:
            clips: of source and results, of which the first says the size.
            csrf: token that its vote is sent with.
        """
        clip = replace(clips[0], frames=min(clip.frames for clip in clips))
        return self.templates.get_template("pair.html").render(trial=trial, clip=clip, csrf=csrf)

    def notice(self, name: str, way_on: str = "", refresh: int = 0, **values: object) -> str:
        """A page that says one thing: the texts `name` and `name_text`.

        Args:
            way_on: name of the text of a link to the next comparison; no link if empty.
            refresh: seconds after which the page is loaded again; 0 for never.
            values: for words in braces.
        """
        return self.templates.get_template("notice.html").render(
            title=self.texts[name],
            text=self.texts[f"{name}_text"].format(**values),
            way_on=self.texts[way_on] if way_on else "",
            refresh=refresh,
        )
