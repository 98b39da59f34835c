"""Counts of a service in Prometheus' text format, version 0.0.4."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping

KIND = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)  # histograms' bounds
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters and histograms of what has happened; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, Labels]] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()
        self._sums: Counter[str] = Counter()
        self._texts: dict[str, tuple[str, str]] = {}

    def count(self, name: str, about: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter; `about` says what it counts."""
        with self._lock:
            self._texts[name] = (about, "counter")
            self._counts[name, tuple(labels.items())] += amount  # type: ignore[assignment]

    def observe(self, name: str, about: str, seconds: float) -> None:
        """Add a duration to a histogram."""
        with self._lock:
            self._texts[name] = (about, "histogram")
            for bound in (*SECONDS, float("inf")):
                self._buckets[name, bound] += seconds <= bound
            self._sums[name] += seconds  # type: ignore[assignment]

    def render(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """The text of a page of metrics.

        Args:
            gauges: what is now: name -> (what it is, value).
        """
        with self._lock:
            lines = [line for name in sorted(self._texts) for line in self._of(name)]
        for name, (about, value) in gauges.items():
            lines += [f"# HELP {name} {about}", f"# TYPE {name} gauge", f"{name} {value:.10g}"]
        return "\n".join(lines) + "\n"

    def _of(self, name: str) -> Iterator[str]:
        about, kind = self._texts[name]
        yield f"# HELP {name} {about}"
        yield f"# TYPE {name} {kind}"
        if kind == "counter":
            for (counter, labels), value in self._counts.items():
                if counter == name:
                    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
                    yield f"{name}{'{' + inside + '}' if inside else ''} {value:.10g}"
            return
        for bound in (*SECONDS, float("inf")):
            edge = "+Inf" if bound == float("inf") else f"{bound:g}"
            yield f'{name}_bucket{{le="{edge}"}} {self._buckets[name, bound]}'
        yield f"{name}_sum {self._sums[name]:.10g}"
        yield f"{name}_count {self._buckets[name, float('inf')]}"


def _escaped(text: str) -> str:
    """A label's value as the format has it."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
