"""What judges are asked in: prompts from files, ours and published ones, and the reason beside grades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from benchmark.core.item import RunStopped
from shards.errors import EditVerseError
from shards.limits import MAX_ANSWER, read_json, read_text

PROMPTS = Path(__file__).resolve().parents[1] / "prompts"
LONGEST = 600  # characters of a reason that are kept


def _cut(told: Any) -> Any:
    return told[:LONGEST] if isinstance(told, str) else told


# a reason that goes on is no reason to lose the grades
Reason = Annotated[str, BeforeValidator(_cut), Field(max_length=LONGEST)]


def read_prompt(path: str | Path) -> str:
    """A prompt's text. Raises RunStopped naming the file."""
    try:
        return read_text(Path(path), MAX_ANSWER)
    except (OSError, EditVerseError) as error:
        raise RunStopped(f"{path}: cannot be read as a prompt: {error}") from error


def read_prompts(
    path: str | Path, what: str, names: Sequence[str] = (), place: str = ""
) -> Mapping[str, str]:
    """Published prompts by name, from a JSON file: an object of texts.

    Args:
        what: how an error calls them, such as "prompts by kind of edit".
        names: those that must be there; any that are, but at least one, when empty.
        place: what those that must be there have in them, such as {question}.

    Raises:
        RunStopped: naming the file.
    """
    try:
        held = read_json(Path(path))
    except (OSError, EditVerseError) as error:
        raise RunStopped(f"{path}: cannot be read as {what}: {error}") from error
    wanted = names or (held if isinstance(held, dict) else ())
    if (
        not isinstance(held, dict)
        or not wanted
        or not all(isinstance(held.get(name), str) and place in held[name] for name in wanted)
    ):
        named = f" with {' and '.join(f'`{name}`' for name in names)}" if names else ""
        within = f", {place} in each" if place else ""
        raise RunStopped(f"{path}: should be an object of {what}{named}{within}")
    return held


def filled(path: str | Path | None, text: str, name: str) -> None:
    """Raise RunStopped unless a prompt has the place of `name` in it."""
    if f"{{{name}}}" not in text:
        raise RunStopped(f"{path}: no {{{name}}} in it, where the {name} goes")
