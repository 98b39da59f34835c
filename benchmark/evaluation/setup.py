"""A run's parts, made from its configuration.

The main process and every worker make the same ones.
"""

from __future__ import annotations

from pathlib import Path

from benchmark.core.item import BenchmarkError, Item
from benchmark.core.media import reading
from benchmark.core.score_cache import ScoreStore
from benchmark.evaluation.item_evaluator import Worker, rows_of
from benchmark.evaluation.results import RunConfig
from benchmark.judges.answer_log import AnswerLog
from benchmark.metrics import Metric, metrics_of
from benchmark.metrics.config import distinct, read_metrics
from benchmark.suites import AnySuite, open_suite
from benchmark.systems.edit_cache import Edits
from benchmark.systems.results_folder import PrecomputedResults, System


class Evaluation:
    """A run's parts, made from its configuration: in the main process, and anew in each worker's."""

    def __init__(self, config: RunConfig, out: Path, device: str | None = None) -> None:
        self.config, self.out = config, out
        with reading(config.mode):
            self.suite: AnySuite = open_suite(config.suite, Path(config.data))
            self.finished = [PrecomputedResults(name, Path(at)) for name, at in config.results.items()]
        chosen = evenly_spaced(len(self.suite.items), config.limit)
        self.items: list[Item] = [self.suite.items[n] for n in chosen]
        self.edits = Edits(out / "edits", Path(config.checkpoint), config.edit) if config.checkpoint else None
        self.systems: list[System] = [*([self.edits] if self.edits else []), *self.finished]
        metrics = config.metrics or self.suite.metrics
        self.metrics: list[Metric] = (
            read_metrics(Path(metrics), config.mode, device or config.device)
            if metrics
            else metrics_of({item.task for item in self.items})
        )
        if config.add_metrics:
            added = read_metrics(Path(config.add_metrics), config.mode, device or config.device)
            self.metrics = distinct([*self.metrics, *added], f"--add-metrics {config.add_metrics}")
        self.rows = rows_of(self.systems, self.suite.references)
        if not self.rows:
            raise BenchmarkError(
                f"--suite {config.suite}: nothing to score; give --checkpoint, or --results name=folder"
            )

    def worker(self, known: ScoreStore, retry: int, answers: AnswerLog) -> Worker:
        """A worker that has these parts; see there."""
        references, mode = self.suite.references, self.config.mode
        return Worker(self.out, self.systems, references, self.metrics, known, retry, answers, mode)


def evenly_spaced(count: int, most: int | None) -> list[int]:
    """Up to `most` of 0..count-1, evenly spread: items are sorted by task, so the first ones would not do."""
    chosen = count if most is None else min(count, most)
    return [n * count // chosen for n in range(chosen)]
