"""What planted bad pairs cost an editor, and what a filter gives back: `python -m tests.perf.planted_data`.

An hour on two cores; repeated, it goes on. It renders nano's scenes anew, plants a defect in 30 % of the
pairs, measures the offline signals, calibrates rules on the labels of a tenth of the pairs (a person would
have given those on the labelling page), filters, and trains and scores the study
`configs/train/ablations/planted/study.yaml`. Everything goes through the commands that a person would type.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from curation.quality.plant import CLEAN, read_labels

DATA, CONFIGS = Path("data/planted"), Path("configs")
MIXED, FILTERED, CALIBRATION = DATA / "mixed", DATA / "filtered", DATA / "calibration"
LABELS = DATA / "labels.jsonl"
SHARE, LABELLED = 0.3, 0.1


def call(*arguments: object) -> None:
    """Run a command of the project; CalledProcessError where it fails."""
    print("python -m", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", *map(str, arguments)], check=True)


def tell_filtered() -> None:
    """Print how many of each kind the filter left, by what was planted in all of them."""
    dropped = {json.loads(line)["key"] for line in (FILTERED / "rejected.jsonl").read_text().splitlines()}
    kinds, left = Counter[str](), Counter[str]()
    for label in read_labels(MIXED):
        kinds[label.kind] += 1
        left[label.kind] += label.key not in dropped
    for kind, count in sorted(kinds.items()):
        print(f"{kind}: {left[kind]} of {count} left")
    bad = sum(left.values()) - left[CLEAN]
    print(f"bad among what is left: {bad / max(1, sum(left.values())):.1%}")


def main() -> None:
    """Do what is not there yet."""
    workspace = DATA / "workspace"
    for name in ("removal", "replacement"):
        out, config = DATA / f"cg_{name}", CONFIGS / "curation" / "planted" / f"cg_{name}.yaml"
        call("curation", "run", f"cg_{name}", "--config", config, "--out", out, "--workspace", workspace)
    if not LABELS.is_file():  # which is written last
        shutil.rmtree(MIXED, ignore_errors=True)
        folders = ",".join(str(DATA / name) for name in ("cg_removal", "cg_replacement"))
        labelled = ("--repeats", "true", "--labels", LABELS, "--labelled", LABELLED)
        call("curation", "plant", folders, "--out", MIXED, "--share", SHARE, *labelled)
    call("curation", "grade", MIXED, "--workspace", workspace)
    call("curation", "calibrate", MIXED, "--labels", LABELS, "--out", CALIBRATION)
    call("curation", "filter", MIXED, "--rules", CALIBRATION / "rules.yaml", "--out", FILTERED)
    tell_filtered()
    study = CONFIGS / "train" / "ablations" / "planted" / "study.yaml"
    call("benchmark", "ablation", "--variants", study, "--out", "runs/planted", "--jobs", "2")


if __name__ == "__main__":
    main()
