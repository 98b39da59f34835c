"""Where a run's shards, pages and numbers go: a folder, or a URL.

A folder is written to directly. What goes to a URL is made in a folder of this machine and then published in
an order that leaves a valid set of shards at every moment, however the process ends: shards, indexes and
columns under names that their content decides, so that no file of the older set is written over; then
`manifest.jsonl`, in one request, with which the new set is there; then pages and numbers; then files that
only the older set named go. A reader that opened the older set before may miss them: it opens again.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curation.engine.task_config import RunError
from shards.column_writer import PREFIX, columns_name
from shards.files import LOCK, InUseError, exclusive, is_unused, sha256_of, sweep_temporaries, write_json
from shards.hashing import digest
from shards.index import index_name
from shards.location import WEB, Location, written_to
from shards.manifest import MANIFEST, ManifestRow, read_manifest
from shards.resources import cache_root
from shards.writer import Item, write_shards

MARK = "run.json"  # of a run's folder: which run's it is
PUBLISHED = re.compile(r"[a-z]+-\d{6}\.[0-9a-f]{12}\.(tar|index\.json)")  # shards named by their content
PAGES = re.compile(r"contact\.(jpg|png)|gallery/[^/]+\.(mp4|png|jpg)|all/[^/]+\.(mp4|png|jpg)")


class Output:
    """The folder or URL of a run.

    Args:
        out: a path, or a URL of fsspec as a string.

    Attributes:
        local: the folder of this machine that is written to.
    """

    def __init__(self, out: str | Path) -> None:
        self.location = written_to(out)
        self.remote, folder = self.location.remote, self.location.folder
        self.local = cache_root() / "out" / digest(folder)[:16] if self.remote else Path(folder)
        if self.location.protocol in WEB:
            raise RunError(f"--out {self}: the web takes no files; choose a folder or a store (s3://, gs://)")

    def __str__(self) -> str:
        return str(self.location)

    def path(self, name: str) -> str:
        """Path or URL of a file in it, for messages."""
        return self.location.path(name)

    def check(self) -> None:
        """Raise RunError for a folder that is no run's, before anything is left in it."""
        if self.remote:
            taken = self._mark() is None and bool(self.location.sizes())
        else:
            taken = not is_unused(self.local) and not (self.local / MARK).is_file()
        if taken:
            raise RunError(f"{self}: is not empty and not the folder of an earlier run; choose another --out")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it against other runs: of any machine that locks the same folder, of this one for a URL."""
        try:
            with exclusive(self.local, "--out"):
                self._clear()
                sweep_temporaries(self.local)
                try:
                    yield
                finally:
                    self._clear()
        except InUseError as error:
            raise InUseError(str(error).replace(str(self.local), str(self))) from None

    def claim(self, task: str, identity: str) -> None:
        """Make it this run's; RunError when it is another's."""
        held, own = self._mark(), {"task": task, "config": identity}
        if held is None:
            self.put_json(MARK, own)
        elif held != own:
            raise RunError(
                f"{self}: holds a run of {held.get('task')} with another config; choose another --out or "
                "delete it"
            )

    def write_shards(self, items: Iterable[Item]) -> list[ManifestRow]:
        """Write the shards of a run's samples, which come in order, to be published."""
        return write_shards(self.local, items, by_content=self.remote, in_order=True)

    def read_json(self, name: str) -> Any:
        """The JSON of a file; None where there is none."""
        try:
            return json.loads(self.location.read(name))
        except FileNotFoundError:
            return None

    def put_json(self, name: str, value: Any) -> None:
        """Write indented JSON at once, ahead of what is published."""
        write_json(self.local / name, value)
        if self.remote:
            self.location.put(name, self.local / name)

    def publish(self) -> None:
        """Bring all that was written to the URL; a folder has it already.

        Raises:
            RunError: another run published there at the same time.
            StoreError: the store does not answer; what was there before is still valid.
        """
        if not self.remote:
            return
        files = self._files()
        older = {row.shard for row in self._rows(self.location)}
        there = self.location.sizes()
        for name in (name for name in files if _place(name) == 0):
            if there.get(name) != (self.local / name).stat().st_size:  # its content decides its name
                self.location.put(name, self.local / name)
        for name in (name for name in files if _place(name) > 0):
            self.location.put(name, self.local / name)
        rows = self._rows(Location(self.local))
        if rows and self._rows(self.location) != rows:
            raise RunError(f"{self}: another run published there at the same time; repeat this one")
        there = self.location.sizes()
        for name in files:
            if name not in there:  # the other run took it for a leaving of a killed one
                self.location.put(name, self.local / name)
        left = {*older, *map(index_name, older)}
        # Columns of the same manifest stay, even if this machine had them elsewhere and made none anew.
        columns = columns_name(sha256_of(self.local / MANIFEST)) if rows else PREFIX
        for name in there:
            of_shards = name in left or PUBLISHED.fullmatch(name) or name.startswith(PREFIX)
            # Where nothing was accepted the older shards stay, as they do in a folder.
            stale = bool(rows) and of_shards and not name.startswith(f"{columns}/")
            if name not in files and (stale or PAGES.fullmatch(name)):
                self.location.remove(name)

    def _files(self) -> list[str]:
        """What was written, in the order in which it is published."""
        paths = (path for path in self.local.rglob("*") if path.is_file())
        names = (path.relative_to(self.local).as_posix() for path in paths)
        return sorted((name for name in names if name != LOCK), key=lambda name: (_place(name), name))

    @staticmethod
    def _rows(location: Location) -> list[ManifestRow]:
        """The rows of a manifest; none where there is none."""
        try:
            location.read(MANIFEST)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return read_manifest(location.folder)

    def _mark(self) -> dict[str, Any] | None:
        held = self.read_json(MARK)
        if held is not None and not isinstance(held, dict):
            raise RunError(f"{self.path(MARK)}: is no run's; choose another --out")
        return held

    def _clear(self) -> None:
        """Remove what was made for a URL, now or by a run that was killed."""
        for path in self.local.iterdir() if self.remote else ():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()


def _place(name: str) -> int:
    """When a file is published: shards and what belongs to them, the manifest, then what is looked at."""
    if PUBLISHED.fullmatch(name) or name.startswith(PREFIX):
        return 0
    if name == MANIFEST:
        return 1
    return 2 if "/" in name else 3
