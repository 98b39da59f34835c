"""A layout with a row at which the process dies that reads it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from curation.datasets.layouts.rows import Blob, EditRow, LayoutOptions, Part
from tests.curation.datasets.bad_rows import encoded, picture


@dataclass(frozen=True)
class DeadlyBlob(Blob):
    """Bytes that nobody survives."""

    def read(self) -> bytes:
        """Kill the process."""
        os.kill(os.getpid(), signal.SIGKILL)
        return b""


class Deadly:
    """Three parts of four pairs; the third pair of the second part kills."""

    name, license = "deadly", "CC0-1.0"

    def __init__(self, options: LayoutOptions) -> None:
        self.options = options

    def parts(self, source: str) -> Iterator[Part]:
        """Three."""
        yield from (Part(f"{n}", start=4 * n, stop=4 * n + 4) for n in range(3))

    def rows(self, part: Part) -> Iterator[EditRow]:
        """Four pairs."""
        for number in range(part.start, part.stop):
            blobs = [Blob.of(encoded(picture(2 * number + k)), f"{number}.png") for k in (0, 1)]
            target = DeadlyBlob("6.png") if number == 6 else blobs[1]
            yield EditRow(str(number), "Paint it blue.", target, (blobs[0],))
