"""The public data sets that are read, by the names that `import` takes: each a mapping over the same readers.

What each is, and what of it was verified where, is said by its file in `configs/datasets`; `docs/datasets.md`
lists them.
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from curation.datasets.layouts.archives import MemberIndex, find_archives, volumes_of
from curation.datasets.layouts.listing import list_sizes
from curation.datasets.layouts.mapping import MISSING, packaged, read_mapping, value_of
from curation.datasets.layouts.records import Record, kind_of
from curation.datasets.layouts.rows import (
    BadRow,
    Blob,
    EditRow,
    Layout,
    LayoutOptions,
    Part,
    Refused,
    place_in,
)
from curation.datasets.layouts.tables import columns_of, number_of, table_parts, table_rows
from curation.datasets.layouts.tar_samples import KEY, read_samples, tar_parts
from curation.sources.clips import printable
from shards.errors import SettingError
from shards.hashing import digest
from shards.limits import shown
from shards.location import URL, Location, suffix_of


class MappedLayout:
    """A data set that a mapping describes: tables with pictures or paths, or tars of samples.

    Args:
        name: of the format.
        options: the user's own mapping, which counts before the packaged one, and task.

    Raises:
        SettingError: the mapping is none.
    """

    def __init__(self, name: str, options: LayoutOptions) -> None:
        self.name = name
        self.mapping = read_mapping(name, options)
        self.license = self.mapping.license
        self._files: dict[str, _Files] = {}

    # ---- parts --------------------------------------------------------------------------------------------

    def parts(self, source: str) -> Iterator[Part]:
        """See `Layout.parts`. A table that cannot be read is a part with a fault, so is one of other columns.

        Raises:
            SettingError: nothing of this layout is there; no table has the columns of the mapping.
        """
        root, only = _root_of(source)
        patterns = self.mapping.tables or self.mapping.tars
        sizes = {only: 0} if only else list_sizes(root, patterns)
        if not sizes:
            raise SettingError(f"{source}: no {self.name}: none of {', '.join(patterns)} is there")
        if self.mapping.tars:
            for archive in find_archives(volumes_of(root, only) if only else sizes, root):
                yield from tar_parts(archive)
        else:
            yield from self._table_parts(root, [name for name in sizes if kind_of(name)])

    def _table_parts(self, root: str, tables: Iterable[str]) -> Iterator[Part]:
        _index_of.cache_clear()  # archives may have come since
        _ = _index_of(root, self.mapping.archives).faults  # made before the workers, who would all begin to
        good, refused, rules = 0, None, digest(self.mapping.model_dump(mode="json"))[:16]
        for table in tables:
            path = f"{root.rstrip('/')}/{table}"
            try:
                for part in table_parts(root, table):
                    if not part.fault:
                        used: list[JsonValue] = [*self.mapping.check(columns_of(part), table)]
                        part = replace(
                            part,
                            about={**part.about, "root": root, "table": table, "used": used, "rules": rules},
                        )
                    yield part
                good += 1
            except SettingError as error:
                refused = refused or error
                yield Part(table, path, fault=str(error))
        if refused is not None and not good:
            raise refused

    # ---- rows ---------------------------------------------------------------------------------------------

    def rows(self, part: Part) -> Iterator[EditRow | BadRow]:
        """See `Layout.rows`."""
        table = str(part.about["table"])
        stem = table.removesuffix(suffix_of(table))
        if "archive" in part.about:
            for sample in read_samples(part):
                yield from self._rows_of(sample, f"{stem}/{sample[KEY]}", table, None)
            return
        files = self._files_of(part)
        used = [str(name) for name in part.about["used"]]
        for number, record in table_rows(part, used):
            if isinstance(record, BadRow):
                yield BadRow(f"{stem}/{number}", record.reason, record.detail)
            else:
                yield from self._rows_of(record, f"{stem}/{number}", table, files)

    def _files_of(self, part: Part) -> _Files:
        table = str(part.about["table"])
        if table not in self._files:
            root = str(part.about["root"])
            roots = [*self.mapping.roots, posixpath.dirname(table)]
            self._files = {table: _Files(root, roots, _index_of(root, self.mapping.archives))}
        return self._files[table]

    def _rows_of(
        self, record: Record, place: str, table: str, files: _Files | None
    ) -> Iterator[EditRow | BadRow]:
        """The pair of a record, or the pairs of its turns."""
        turns = value_of(record, self.mapping.turns) if self.mapping.turns else MISSING
        if turns is MISSING:
            yield self._row(record, place, table, files)
            return
        if not isinstance(turns, list) or not turns:
            yield BadRow(place, "no turns", shown(turns))
            return
        for turn, inner in enumerate(turns, 1):
            about = {"group": place, "turn": turn, "parent": f"{place}-{turn - 1}" if turn > 1 else None}
            if isinstance(inner, dict):
                yield self._row(inner, f"{place}-{turn}", table, files, about)
            else:
                yield BadRow(f"{place}-{turn}", "not a record", shown(inner))

    def _row(
        self, record: Record, place: str, table: str, files: _Files | None, turn: dict[str, Any] | None = None
    ) -> EditRow | BadRow:
        mapping, identity = self.mapping, place
        try:
            of_turn = turn or self._turn(record)
            identity = self._identity(record) or place
            sources = self._wanted(record, mapping.source, "source", identity, files)
            references = self._wanted(record, mapping.reference, "reference", identity, files)
            targets = self._wanted(record, mapping.target, "target", identity, files)
            if len(targets) > 1:
                raise Refused("several targets", f"{len(targets)} of them")
            masks = self._blobs(record, mapping.mask, "mask", identity, files)
            group = self._text(record, mapping.group)
            return EditRow(
                identity=identity,
                instruction=self._instruction(record),
                target=targets[0],
                sources=(*sources, *references),
                mask=masks[0] if masks else None,
                mask_rule=mapping.mask_rule,
                task=self._task(record, table),
                origin=mapping.origin or mapping.title,
                captions={
                    k: text for k, names in mapping.captions.items() if (text := self._text(record, names))
                },
                scores={key: number_of(value_of(record, names)) for key, names in mapping.scores.items()},
                reverse_instruction=self._text(record, mapping.reverse_instruction) or None,
                aligned=mapping.aligned,
                **{"group": f"{self.name}/{group}" if group else "", **of_turn},
            )
        except Refused as fault:
            return BadRow(identity, fault.reason, fault.detail)

    def _identity(self, record: Record, instead: Mapping[str, object] | None = None) -> str:
        """The columns of `id`, joined; "" where the mapping names none."""
        parts = []
        for name in self.mapping.id:
            value = (instead or {}).get(name, value_of(record, (name,)))
            if value is MISSING or value is None or isinstance(value, dict | list):
                raise Refused("no identity", f"{name} is {'missing' if value is MISSING else shown(value)}")
            parts.append(printable(str(value)))
        return "-".join(parts)

    def _turn(self, record: Record) -> dict[str, Any]:
        """Number and parent of a turn that has a row of its own."""
        if not self.mapping.turn:
            return {}
        value = value_of(record, self.mapping.turn)
        try:
            turn = int(value)
        except (TypeError, ValueError):
            raise Refused("no turn", f"{self.mapping.turn[0]} is {shown(value)}") from None
        if turn <= 1:
            return {"turn": 1}
        return {"turn": turn, "parent": self._identity(record, {self.mapping.id[-1]: turn - 1})}

    def _instruction(self, record: Record) -> str:
        text = self._text(record, self.mapping.instruction)
        for piece in self.mapping.strip:
            text = text.replace(piece, " ")
        return " ".join(text.split())

    def _text(self, record: Record, names: Iterable[str]) -> str:
        value = value_of(record, names)
        if isinstance(value, list):
            value = next((item for item in value if isinstance(item, str) and item.strip()), "")
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if value is MISSING or value is None or isinstance(value, dict | Blob):
            return ""
        return str(value).strip()

    def _task(self, record: Record, table: str) -> str:
        rule = self.mapping.task
        return rule.task_of(self._text(record, rule.column) if rule.column else table)

    def _blobs(
        self, record: Record, names: tuple[str, ...], role: str, identity: str, files: _Files | None
    ) -> list[Blob]:
        """The pictures or videos of a role; none where its value stands for nothing."""
        if not names:
            return []
        value = value_of(record, names)
        found = []
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                item = item.get("bytes") or item.get("path")
            if item is MISSING or item is None or (isinstance(item, str) and self._is_nothing(item)):
                continue
            if isinstance(item, Blob):
                found.append(item)
            elif isinstance(item, bytes):
                found.append(Blob.of(item, f"{identity} {role}"))
            elif isinstance(item, str) and files is not None:
                found.append(files.find(item.strip()))
            else:
                raise Refused(
                    f"no {role}", f"{' or '.join(names)} is {shown(item)}, neither path nor picture"
                )
        return found

    def _wanted(
        self, record: Record, names: tuple[str, ...], role: str, identity: str, files: _Files | None
    ) -> list[Blob]:
        """`_blobs`, of which there must be one unless the mapping says that there may be none."""
        found = self._blobs(record, names, role, identity, files)
        if names and not found and not any(name.endswith("?") for name in names):
            raise Refused("no file named", f"{' or '.join(names)} is empty, the {role}")
        return found

    def _is_nothing(self, text: str) -> bool:
        return not text.strip() or text.strip() in self.mapping.empty


@functools.lru_cache(maxsize=4)  # a layout is made anew for every part
def _index_of(root: str, patterns: tuple[str, ...]) -> MemberIndex:
    """The archives of a data set."""
    return MemberIndex(find_archives(list_sizes(root, patterns), root) if patterns else [])


class _Files:
    """Finds the files that a table names: in archives, or below the data set.

    Args:
        root: the data set, a folder or URL.
        roots: folders in it that paths may begin in.
    """

    def __init__(self, root: str, roots: Iterable[str], index: MemberIndex) -> None:
        self._root, self._index = root, index
        self._roots = list(dict.fromkeys(roots))
        self._remote = URL.match(root) is not None

    def find(self, name: str) -> Blob:
        """The file of a name.

        Raises:
            Refused: it is nowhere.
            MediaError: the name leads out of the data set.
        """
        places = [posixpath.join(folder, name) for folder in self._roots]
        for place in places:
            path = place_in(self._root, place)
            if self._index.archives and (blob := self._index.find(place)) is not None:
                return blob
            if self._is_there(path, place):
                return Blob.at(path, place)
        if broken := self._index.faults:
            raise Refused("in a part of an archive that is missing", f"{name}; {broken[0]}")
        raise Refused("file missing", name)

    def _is_there(self, path: str, place: str) -> bool:
        if not self._remote:
            return Path(path).is_file()
        try:
            Location(self._root).version(place)
        except FileNotFoundError:
            return False
        return True


# ---- plain values -----------------------------------------------------------------------------------------


def _root_of(source: str) -> tuple[str, str]:
    """The folder of a data set, and the one table or tar in it where the source is a file."""
    is_file = bool(suffix_of(source)) if URL.match(source) else Path(source).is_file()
    if is_file:
        folder, _, name = source.rpartition("/")
        return folder or ("/" if source.startswith("/") else "."), name
    if not URL.match(source) and not Path(source).is_dir():
        raise SettingError(f"{printable(source)}: no such folder or file")
    return source, ""


def _maker(name: str) -> Callable[[LayoutOptions], Layout]:
    return functools.partial(MappedLayout, name)


LAYOUTS: dict[str, Callable[[LayoutOptions], Layout]] = {name: _maker(name) for name in packaged()}
