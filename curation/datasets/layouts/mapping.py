"""Which column of a table is what: the mappings in `configs/datasets`, one for each public data set.

A name of a column may go on into what the column holds: `conversations[1].value`, `image[:-1]`. One with a
question mark at its end may be missing; of several names the first that is there is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from curation.datasets.layouts.rows import LayoutOptions, MaskRule
from shards.errors import SettingError
from shards.limits import read_yaml
from shards.resources import config_root
from shards.sample import explain

NAME = re.compile(
    r"(?P<column>[^\[\].?]+)(?P<rest>(?:\[-?\d*(?::-?\d*)?\]|\.[^\[\].?]+)*)(?P<optional>\??)\Z"
)
STEP = re.compile(r"\[(?P<start>-?\d*)(?P<slice>:(?P<stop>-?\d*))?\]|\.(?P<key>[^\[\].?]+)")
MISSING = object()  # of a value that a record does not have


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]  # of a column: the first that is there counts
TaskName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")]


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskRule(_Rules):
    """How the task of a row is known.

    Attributes:
        column: of the data set's own word for it; left out where the name of the table says it.
        names: from a part of that word, or of the table's path, to our task; the first that fits counts.
            Case does not matter, and spaces and hyphens are underscores.
        default: where none fits; "" for image_editing, video_editing, text_to_image or text_to_video.
    """

    column: Names = ()
    names: dict[str, TaskName] = {}
    default: TaskName | Literal[""] = ""

    def task_of(self, word: str) -> str:
        """Our task for a word of the data set."""
        word = re.sub(r"[\s-]+", "_", word.strip().lower())
        return next((task for part, task in self.names.items() if part in word), self.default)


class DatasetMapping(_Rules):
    """Where a data set has what we need. `docs/datasets.md` explains it with an example.

    Attributes:
        title, license, origin: what the data set is, and who made the pairs with what.
        verified, unverified: what of this was seen where, and what was not.
        tables: patterns of the files with rows, relative to the data set; without any, `tars` are read as
            WebDataset: a sample is the files of one name, and its columns are their suffixes.
        roots: folders that paths in a table begin in; the folder of the table comes last.
        archives: patterns of the tars (also split into volumes) and zips that files may be in.
        id: columns that name a row, joined; else its place in its table does.
        source, reference, target, mask: what goes in, what else goes in, what comes out; a path, bytes, a
            picture's struct of a Hugging Face parquet, or a list of them.
        turns: of a multi-turn row the list of its turns; the other names are then of a turn.
        turn: of a table with a row for each turn, its number; it must be the last of `id`.
        strip: pieces of text that are taken out of the instruction.
        empty: values that stand for nothing, beside null and "".
    """

    title: str
    license: str = "unknown"
    origin: str = ""
    verified: str = ""
    unverified: str = ""
    tables: tuple[str, ...] = ()
    tars: tuple[str, ...] = ()
    roots: tuple[str, ...] = ("",)
    archives: tuple[str, ...] = ()
    id: tuple[str, ...] = ()
    group: Names = ()
    instruction: Names
    reverse_instruction: Names = ()
    source: Names = ()
    reference: Names = ()
    target: Names
    mask: Names = ()
    mask_rule: MaskRule = "bright"
    aligned: bool = True
    turns: Names = ()
    turn: Names = ()
    task: TaskRule = TaskRule()
    captions: dict[str, Names] = {}
    scores: dict[str, Names] = {}
    strip: tuple[str, ...] = ()
    empty: tuple[str, ...] = ("None",)

    @model_validator(mode="after")
    def _names_are_names(self) -> Self:
        for role, names in self.roles().items():
            for name in names:
                if not NAME.match(name):
                    raise ValueError(f"{role}: {name!r} is no name of a column")
        if bool(self.tables) == bool(self.tars):
            raise ValueError("tables: needs patterns either here or in `tars`")
        if self.turn and (not self.id or self.id[-1] not in self.turn):
            raise ValueError("turn: must be the last of `id`")
        return self

    def roles(self) -> dict[str, tuple[str, ...]]:
        """The names by what they are for."""
        own = (
            "instruction",
            "source",
            "target",
            "reference",
            "mask",
            "turns",
            "turn",
            "group",
            "reverse_instruction",
        )
        found = {role: getattr(self, role) for role in own}
        found |= {"task": self.task.column, **{f"id {i}": (name,) for i, name in enumerate(self.id)}}
        found |= {f"captions.{key}": names for key, names in self.captions.items()}
        return found | {f"scores.{key}": names for key, names in self.scores.items()}

    def check(self, columns: Iterable[str], where: str) -> list[str]:
        """The columns of a table that are read.

        Raises:
            SettingError: a name that may not be missing is none of its columns.
        """
        have = list(columns)
        of_turns = bool(self.turns) and _present(self.turns, have)
        used: dict[str, None] = {}
        for role, names in self.roles().items():
            if of_turns and role != "turns":
                continue
            used.update({heads: None for name in names if (heads := head_of(name)) in have})
            if names and not _present(names, have) and not any(name.endswith("?") for name in names):
                raise SettingError(
                    f"{where}: has the columns {', '.join(have) or '(none)'}, but the mapping names "
                    f"{' or '.join(names)} for {role.partition(' ')[0]}; write a mapping for it"
                )
        return list(used)


def head_of(name: str) -> str:
    """The column that a name begins with."""
    match = NAME.match(name)
    assert match is not None
    return match["column"]


def _present(names: Iterable[str], columns: list[str]) -> bool:
    return any(head_of(name) in columns for name in names)


def value_of(record: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The value of the first name that a record has; `MISSING` where it has none of them."""
    for name in names:
        match = NAME.match(name)
        assert match is not None
        value = record.get(match["column"], MISSING)
        for step in STEP.finditer(match["rest"]):
            value = _step(value, step)
        if value is not MISSING:
            return value
    return MISSING


def _step(value: Any, step: re.Match[str]) -> Any:
    """A field of an object, an item of a list, or some of its items."""
    if step["key"] is not None:
        return value.get(step["key"], MISSING) if isinstance(value, dict) else MISSING
    if not isinstance(value, list):
        return MISSING
    start = int(step["start"]) if step["start"] else None
    if step["slice"] is not None:
        return value[start : int(step["stop"]) if step["stop"] else None]
    index = start or 0
    return value[index] if -len(value) <= index < len(value) else MISSING


def packaged() -> list[str]:
    """The names of the data sets that have a mapping."""
    return sorted(path.stem for path in (config_root() / "datasets").glob("*.yaml"))


def read_mapping(name: str, options: LayoutOptions) -> DatasetMapping:
    """The mapping of a data set, with what the user's own sets instead.

    Raises:
        SettingError: the two together are no mapping; the message names the field.
    """
    path = config_root() / "datasets" / f"{name}.yaml"
    values = {**read_yaml(path), **options.mapping}
    if options.task:
        values["task"] = {"default": options.task}
    try:
        return DatasetMapping.model_validate(values)
    except ValidationError as error:
        where = "the mapping" if options.mapping else Path(path).name
        raise SettingError(f"{where} of {name}: {explain(error)}") from None


def mapping_of(path: Path | None, columns: str) -> dict[str, Any]:
    """What a YAML file and `role=column,...` say together; the latter wins. Raises SettingError."""
    found: dict[str, Any] = {}
    if path is not None:
        value = read_yaml(path)
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise SettingError(f"{path}: needs roles and columns, such as `source: before`")
        found.update(value)
    for pair in (pair.strip() for pair in columns.split(",") if pair.strip()):
        role, equals, column = pair.partition("=")
        if not equals or not role.strip() or not column.strip():
            raise SettingError(f"--columns {pair}: needs role=column, such as source=before")
        found[role.strip()] = column.strip()
    return found
