"""`--dry-run --load` on tiny models: every part is loaded in a process of its stage, and runs on noise."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curation.engine.preflight import Noise, parts_of_stage, preflight, try_part
from curation.engine.task_config import RunError, build
from tests.curation.reference.conftest import LENGTH


def rows(printed: str) -> dict[str, list[str]]:
    """Stage -> the other columns of the printed table."""
    lines = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if "│" in line
    ]
    return {first: others for first, *others in lines}


@pytest.mark.parametrize("task", ["pose_to_video", "style_transfer"])
def test_every_part_loads_and_runs(task: str, small: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    built = build(small(task, tmp_path))
    clip = Noise.like_clips_of(built)
    assert clip.frames.shape == (LENGTH, 64, 96, 3)
    for stage in built.graph:
        for part in parts_of_stage(stage):
            checked = try_part(stage, part, clip)
            assert not checked.error
            assert checked.seconds is not None, checked.note
            assert checked.seconds > 0
            assert checked.memory > 0.05
            assert checked.loading is not None or checked.note == "with loading"
            assert checked.gpu is None or checked.gpu > 0


def test_all_that_fails_is_told_at_once(
    small: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is missing, one that runs out of memory, and one that kills its process; one is well."""
    config = small("object_removal", tmp_path)
    arguments = config["init_args"]
    finder = arguments["finder"]["init_args"]
    finder["detector"]["init_args"]["checkpoint"] = str(tmp_path / "nothing")
    finder["segmenter"] = {
        "class_path": "tests.curation.deadly.DeadlySegmenter",
    }
    arguments["inpainter"]["init_args"]["program"]["environment"] = {"FAIL": "memory"}
    arguments["judge"]["init_args"]["vlm"] = arguments["writer"]["init_args"]["vlm"]
    with pytest.raises(RunError, match=r"object_removal: 3 of 4 parts do not work"):
        preflight("object_removal", config)
    printed = capsys.readouterr()
    table = rows(printed.out)
    assert table["name"][-1] == ""
    assert table["write"][-1] == "as in stage name"
    assert [table[stage][-1] for stage in ("ground", "segment", "inpaint")] == ["fails"] * 3
    missing, died, full = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert re.search(r"stage ground, GroundingDino: .*nothing: no checkpoint of Grounding DINO", missing)
    assert "stage segment, DeadlySegmenter: its process died (SIGKILL)" in died
    assert "error: stage inpaint: the GPU's memory is used up" in full
