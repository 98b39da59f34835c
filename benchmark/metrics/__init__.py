"""Metrics: (source, target, mask, result) -> a number, or unscored with a reason.

One module each; `default_metrics` is the list that a run uses.
"""

from __future__ import annotations

from benchmark.metrics.background import BackgroundChange
from benchmark.metrics.base import Metric
from benchmark.metrics.psnr import Psnr
from benchmark.metrics.ssim import Ssim
from benchmark.metrics.warp import WarpError


def default_metrics() -> list[Metric]:
    """The full-reference metrics, in the order of the table."""
    return [
        Psnr("inside"),
        Psnr("outside"),
        Ssim("inside"),
        Ssim("outside"),
        WarpError(),
        BackgroundChange(),
    ]
