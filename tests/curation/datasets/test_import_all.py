"""A list of data sets: what is used by its licence, what is left out, what fails and costs itself alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.curation.datasets.bad_rows import image_cases
from tests.curation.datasets.test_importing import call, table_csv


def listed(tmp_path: Path, *rows: dict[str, Any]) -> str:
    path = tmp_path / "imports.yaml"
    path.write_text(yaml.safe_dump(list(rows)))
    return str(path)


@pytest.fixture
def pairs(tmp_path: Path) -> dict[str, Any]:
    """An entry of two good pairs."""
    words = table_csv(image_cases()[:1], tmp_path / "in")
    options = {"columns": words[words.index("--columns") + 1]} if "--columns" in words else {}
    return {"format": "table", "source": words[1], **options, "heldout": 0.0}


def test_licences_decide_and_one_that_fails_costs_itself_alone(
    tmp_path: Path, pairs: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = listed(
        tmp_path,
        {"name": "free", "license": "CC-BY-4.0", **pairs},
        {"name": "nc", "license": "CC-BY-NC-4.0", **pairs},
        {"name": "own_terms", "license": "our own terms", **pairs},
        {"name": "allowed", "license": "our own terms", "commercial": True, **pairs},
        {"name": "ditto", "format": "ditto", "source": str(tmp_path / "none")},
        {"name": "absent", "license": "MIT", **pairs, "source": str(tmp_path / "none")},
    )
    out = tmp_path / "out"
    assert call("import-all", path, "--out", str(out), "--workers", "0") == 2
    told = capsys.readouterr().err
    assert told.splitlines()[-1].startswith(f"error: not imported: absent ({tmp_path}/none")
    assert "nc: left out, CC-BY-NC-4.0: non-commercial: CC-BY-NC-4.0" in told
    record = json.loads((out / "imports.json").read_text())
    assert [(row["name"], row["license"], row["commercial"]) for row in record["used"]] == [
        ("free", "CC-BY-4.0", "yes"),
        ("allowed", "our own terms", "yes"),
    ]
    assert record["used"][0]["accepted"] == 1
    assert (out / "free" / "manifest.jsonl").is_file() or list((out / "free").glob("*.tar"))
    why = {row["name"]: row["reason"] for row in record["left_out"]}
    assert set(why) == {"nc", "own_terms", "ditto"}
    assert why["own_terms"].startswith("it is not known to allow commercial use")
    assert [row["name"] for row in record["failed"]] == ["absent"]

    path = listed(tmp_path, {"name": "nc", "license": "CC-BY-NC-4.0", **pairs})
    assert call("import-all", path, "--out", str(tmp_path / "all"), "--workers", "0", "--no_commercial") == 0
    assert "1 data sets used, 1 samples, 0 left out" in capsys.readouterr().out
    assert call("import-all", path, "--out", str(tmp_path / "none"), "--workers", "0") == 2
    assert "every data set is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"format": "senorita", "license": ""},
            "mine: its licence is unknown; state `license`",
        ),
        ({"format": "omniedti", "license": ""}, "no such format"),
        ({"lisence": "MIT"}, "no key 'lisence'"),
        ({"held_out": 0.1}, "no key 'held_out'; did you mean heldout"),
        ({"source": ""}, "needs `source` as text"),
        ({"name": "../up"}, "is that of a folder"),
        ({"mapping": "gone.yaml"}, "gone.yaml is no file"),
    ],
)
def test_a_fault_of_the_list_is_one_line_before_any_work(
    tmp_path: Path,
    pairs: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    said: str,
) -> None:
    path = listed(tmp_path, {"name": "mine", "license": "MIT", **pairs, **change})
    assert call("import-all", path, "--out", str(tmp_path / "out"), "--workers", "0") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
