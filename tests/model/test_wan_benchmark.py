"""The benchmark of Wan's transformer runs on the CPU, with tiny sizes, as it is to run on a GPU."""

from __future__ import annotations

import re

import pytest

from tests.perf import wan


def test_the_benchmark_of_wan_is_ready_for_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    wan.main(["--device", "cpu", "--size", "tiny", "--quick"])
    lines = capsys.readouterr().out.splitlines()
    kinds = ("forward pass", "guided step", "training step")
    assert [line.split(",")[0] for line in lines] == [kind for kind in kinds for _ in range(2)]
    assert all("36 tokens" in line and " TFLOP/s" in line for line in lines)
    goals = {line.split(",")[0]: line for line in lines if ": ours" in line}
    assert all(re.search(r"\d\.\d\dx diffusers' speed \(goal 1.3x\)", line) for line in goals.values())
    assert "goal 4.3 s" in goals["guided step"]
    assert "goal 400 TFLOP/s" in goals["training step"]


def test_the_full_size_is_that_of_the_published_weights() -> None:
    case = wan.CASES["1.3b"]
    frames, rows, columns = case.clip
    assert 2 * frames * (rows // 2) * (columns // 2) == 65_520
    assert (case.config.width, case.config.depth, case.config.heads, case.config.hidden) == (
        1536,
        30,
        12,
        8960,
    )
