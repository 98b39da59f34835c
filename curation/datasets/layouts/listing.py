"""Which files of a data set match some patterns, in a folder or a store."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from shards.location import Location


def list_sizes(root: str, wanted: Iterable[str]) -> dict[str, int]:
    """Bytes of the files of a data set that match one of some patterns ("Singleturn/*.tar*"), by name.

    Args:
        root: a folder or URL; of a URL all names are listed first.

    Raises:
        StoreError: the store does not answer; the web does not list what it has.
    """
    location = Location(root)
    if location.remote:
        patterns = [re.compile(_regex(pattern)) for pattern in wanted]
        return {n: s for n, s in location.sizes().items() if any(p.fullmatch(n) for p in patterns)}
    found = {}
    for pattern in wanted:
        for path in Path(root).glob(pattern):
            if path.is_file():
                found[path.relative_to(root).as_posix()] = path.stat().st_size
    return dict(sorted(found.items()))


def _regex(pattern: str) -> str:
    """A glob of `Path.glob` as a regular expression: `**/` is any folders or none."""
    parts = re.split(r"(\*\*/|\*|\?)", pattern)
    meaning = {"**/": r"(?:.*/)?", "*": r"[^/]*", "?": r"[^/]"}
    return "".join(meaning.get(part, re.escape(part)) for part in parts)
