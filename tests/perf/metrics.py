"""The benchmark's metrics, in milliseconds per frame of 480x360, and the bootstrap.

The target's flow is shared by the rows of a table, so it is timed apart.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmark.core.item import Geometry, Loaded, Reference
from benchmark.metrics import default_metrics
from benchmark.statistics.intervals import mean_interval
from tests.perf.measure import Figure, per, scene, timed

FRAMES, HEIGHT, WIDTH = 17, 360, 480


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Time every metric on one clip."""
    frames = 3 if quick else FRAMES
    source, target, mask = scene(frames, HEIGHT, WIDTH)
    loaded, geometry = Loaded(source, target, mask, 10, {}), Geometry(frames, HEIGHT, WIDTH, 10)

    def flow() -> None:
        _ = Reference(loaded, geometry).target_flow

    figures = [per("flow of the target (once per item)", timed(flow, quick), frames - 1, "frame")]
    reference = Reference(loaded, geometry)
    _ = (reference.inside, reference.outside, reference.target_flow)
    for metric in default_metrics():
        figures.append(
            per(metric.name, timed(lambda m=metric: m(reference, source), quick, 1.0), frames, "frame")
        )
    scores = np.random.default_rng(0).normal(size=200).tolist()
    labels = [str(n // 2) for n in range(200)]
    figures.append(
        per("bootstrap of 200 scores", timed(lambda: mean_interval(scores, labels), quick, 1.0), 1, "mean")
    )
    return figures
