"""The most memory that something took: of this process, of a GPU, or of a program and its children."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import TracebackType

from shards.processes import peak_memory


class Meter:
    """Measures a block: `peak_bytes` is the most that torch held of a GPU in it, else that the process did.

    Of the process it is the resident memory's high-water mark, which is set back where the kernel allows it;
    where not, it is that since the process began.
    """

    peak_bytes: int | None = None

    def __enter__(self) -> Meter:
        with contextlib.suppress(OSError):  # no Linux, or not allowed: the mark stays the process's
            Path("/proc/self/clear_refs").write_text("5")
        if cuda := _used_cuda():
            for number in range(cuda.device_count()):
                cuda.reset_peak_memory_stats(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gpu = 0
        if cuda := _used_cuda():
            gpu = max(cuda.max_memory_allocated(number) for number in range(cuda.device_count()))
        self.peak_bytes = gpu or peak_memory()


def _used_cuda():  # type: ignore[no-untyped-def]
    """torch.cuda, where this process uses it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes


class Session:
    """The processes of a session, which a program started with `start_new_session` and its children make up.

    Args:
        leader: number of the process that leads it, which is not counted.

    `peak_bytes` is the most that was seen of all of them at once, or that one of them had on its own.
    """

    def __init__(self, leader: int) -> None:
        self.leader, self.peak_bytes = leader, 0

    def look(self) -> int:
        """Bytes resident in all of them now, which may raise `peak_bytes`."""
        total = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
                # state, parent, group, session
                if int(fields[3]) != self.leader or stat.parent.name == str(self.leader):
                    continue
                total += int(fields[21]) * PAGE
                self.peak_bytes = max(self.peak_bytes, peak_memory(int(stat.parent.name)))
            except (OSError, StopIteration, IndexError, ValueError):  # it has just ended
                continue
        self.peak_bytes = max(self.peak_bytes, total)
        return total
