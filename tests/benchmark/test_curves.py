"""Training curves: any CSV with a step column is drawn, sparse columns and odd rows included.

What holds no curve is refused by name.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.core.item import BenchmarkError
from benchmark.report.training_curves import Curve, nice_ticks, read_curves, running_mean, svg


def test_sparse_columns_become_curves_of_their_own_steps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(
        "epoch,step,train_loss,val_loss,note\n0,3,1.5,,a\n0,1,2.5,,b\n0,2,nan,0.5,c\n0,4,1,0.25,d\n"
    )
    curves = {curve.name: curve for curve in read_curves(path)}
    assert set(curves) == {"train_loss", "val_loss"}
    np.testing.assert_array_equal(curves["train_loss"].steps, [1, 3, 4])
    np.testing.assert_array_equal(curves["train_loss"].values, [2.5, 1.5, 1])
    np.testing.assert_array_equal(curves["val_loss"].steps, [2, 4])


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"step,loss\n1,\n", b"\xff\xfe\x00junk\n"])
def test_a_file_without_a_curve_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_bytes(content)
    with pytest.raises(BenchmarkError, match=r"odd\.csv"):
        read_curves(path)


@given(
    values=st.lists(st.floats(-1e6, 1e6).filter(lambda v: v == 0 or abs(v) > 1e-6), min_size=2, max_size=200)
)
def test_every_curve_is_well_formed_and_stays_in_its_frame(values: list[float]) -> None:
    curve = Curve("<loss> & more", np.arange(len(values), dtype=float), np.array(values))
    drawing = ElementTree.fromstring(svg(curve))
    _, _, width, height = (float(v) for v in drawing.attrib["viewBox"].split())
    for path in drawing.iter("path"):
        points = [tuple(map(float, p.split(","))) for p in re.findall(r"[-\d.]+,[-\d.]+", path.attrib["d"])]
        assert len(points) == len(values)
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


@given(low=st.floats(-1e5, 1e5), span=st.floats(1e-3, 1e5))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    assert 1 <= len(ticks) <= 8
    assert all(low - 1e-6 * span <= tick <= low + span + 1e-6 * span for tick in ticks)


def test_a_running_mean_keeps_a_constant_and_removes_noise() -> None:
    np.testing.assert_allclose(running_mean(np.full(50, 3.0), 7), 3.0)
    noise = np.random.default_rng(0).normal(size=400)
    assert running_mean(noise, 20).std() < 0.5 * noise.std()
    assert not math.isnan(running_mean(noise, 20)[0])
