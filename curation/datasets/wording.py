"""What instructions say: which are none, and the way back from a removal or an addition."""

from __future__ import annotations

import re

from curation.datasets.layouts.rows import EditRow, Refused
from curation.text.templates import ADD, REMOVE, draw
from shards.sample import TAG

MOST_CHARACTERS = 4000
PLACEHOLDER = re.compile(
    r"n\s*/?\s*a|none|null|nan|nil|undefined|unknown|to ?do|tbd|placeholder|test|string|empty|untitled|"
    r"(the |your )?(edit )?(instruction|prompt|caption|text|description)s?( here)?|lorem ipsum.*|"
    r"[x?.\-_*#\s]+",
    re.IGNORECASE | re.DOTALL,
)
_WHERE = (
    r"(?: (?:from|in|to|into|of) (?:the |this )?(?:image|picture|photo|photograph|video|scene|frame|clip))?"
)
_WHAT = r"(?P<what>[^.,;:!?<>]+?)"
REMOVAL = re.compile(rf"(?:please )?(?:remove|erase|delete|take out|get rid of) {_WHAT}{_WHERE}[.!]?", re.I)
ADDITION = re.compile(rf"(?:please )?(?:add|insert|place|put) {_WHAT}{_WHERE}[.!]?", re.I)
# More than one edit, or one that is no removal at all ("remove the blur", "add more contrast").
COMPOUND = re.compile(
    r"\b(and|then|but|while|with|replace|change|make|turn|more|effects?|blur|noise|style|colou?rs?|it|them)\b",
    re.I,
)
TO = re.compile(r"(?<!next)(?<!close) (?:on)?to ")
ARTICLE = re.compile(r"(an?|some|one|another) ", re.I)
WAYS = ((REMOVAL, ADD, "object_removal"), (ADDITION, REMOVE, "object_addition"))
OF_TASK = {"object_removal": "object_addition", "object_addition": "object_removal"}


def cleaned(row: EditRow) -> str:
    """The instruction on one line.

    Raises:
        Refused: empty, a placeholder, too long, with tags of ours, or the same as another field of the row.
    """
    words = " ".join(row.instruction.split())
    if not words:
        raise Refused("no instruction")
    said = words.strip(" \"'`“”[](){}<>").rstrip(".!").strip()
    if PLACEHOLDER.fullmatch(said or "?") or not any(c.isalpha() for c in words):
        raise Refused("placeholder for an instruction", words[:80])
    if len(words) > MOST_CHARACTERS:
        raise Refused("instruction too long", f"{len(words)} characters, at most {MOST_CHARACTERS}")
    if tag := TAG.search(words):
        raise Refused("instruction with a tag", f"{tag[0]} stands for a medium in our texts")
    others = {blob.name for blob in (*row.sources, row.target)} | {row.identity, row.task}
    others |= {name.rpartition("/")[2] for name in others}
    if row.sources:
        others |= set(row.captions.values())
    if words in {" ".join(other.split()) for other in others}:
        raise Refused("instruction repeats another field", words[:80])
    return words


def reversed_instruction(row: EditRow, words: str, kind: str) -> tuple[str, str] | None:
    """(task, instruction) of the way back; None where the edit has none that can be said.

    What a data set says itself is taken. Else a plain removal becomes an addition and the other way round:
    one thing, named in one phrase, by the wordings of `curation.text.templates`.

    Args:
        words: the instruction, cleaned.
        kind: "image" or "video".
    """
    task = row.task or f"{kind}_editing"
    if row.reverse_instruction:
        return OF_TASK.get(task, task), " ".join(row.reverse_instruction.split())
    for pattern, wordings, from_task in WAYS:
        match = pattern.fullmatch(words)
        if match is None or COMPOUND.search(match["what"]) or task in OF_TASK.keys() - {from_task}:
            continue
        what = match["what"].strip()
        if wordings is REMOVE:
            if not ARTICLE.match(what):
                continue
            what = ARTICLE.sub("the ", what, count=1)
            what = TO.sub(" from ", what)  # "a hat to the dog"
        else:
            what = what.replace(" from ", " to ")
        text = draw(wordings, row.identity, "reversal").format(what=what)
        if kind == "image":
            text = text.replace("the video", "the picture")
        return OF_TASK.get(task, task), text
    return None
