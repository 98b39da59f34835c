"""What planted bad pairs cost an editor, and what a filter gives back: `python -m tests.perf.planted_data`.

An hour on two cores; repeated, it goes on. It renders nano's scenes anew, plants a defect in 30 % of the
pairs, measures the offline signals, calibrates rules on the labels of a tenth of the pairs (a person would
have given those on the labelling page), filters, and trains and scores the study
`configs/train/ablations/planted/study.yaml`. Everything goes through the commands that a person would type.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from shards.files import write_bytes
from tests.planted_defects import CLEAN, labels_of, read_labels

DATA, CONFIGS = Path("data/planted"), Path("configs")
MIXED, FILTERED, CALIBRATION = DATA / "mixed", DATA / "filtered", DATA / "calibration"
SHARE, LABELLED = 0.3, 0.1


def call(*arguments: object) -> None:
    """Run a command of the project; CalledProcessError where it fails."""
    print("python -m", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", *map(str, arguments)], check=True)


def label_some() -> Path:
    """The file of labels that somebody would have written who had looked at a tenth of the pairs."""
    labels = read_labels(MIXED)
    seen = sorted(random.Random(0).sample(labels, round(LABELLED * len(labels))), key=lambda one: one.key)
    file = DATA / "labels.jsonl"
    lines = [
        {
            "key": label.key,
            "keep": label.kind == CLEAN,
            "reasons": [] if label.kind == CLEAN else [label.kind],
            "by": "the planter",
            "at": "2026-11-30T00:00:00+00:00",
        }
        for label in seen
    ]
    write_bytes(file, "".join(json.dumps(line) + "\n" for line in lines).encode())
    print(f"{file}: {len(lines)} labels, {dict(Counter(label.kind for label in seen))}")
    return file


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
    if not labels_of(MIXED).is_file():  # which is written last
        shutil.rmtree(MIXED, ignore_errors=True)
        folders = [DATA / "cg_removal", DATA / "cg_replacement"]
        call("tests.planted_defects", MIXED, *folders, "--share", SHARE)
    call("curation", "grade", MIXED, "--workspace", workspace)
    call("curation", "calibrate", MIXED, "--labels", label_some(), "--out", CALIBRATION)
    call("curation", "filter", MIXED, "--rules", CALIBRATION / "rules.yaml", "--out", FILTERED)
    tell_filtered()
    study = CONFIGS / "train" / "ablations" / "planted" / "study.yaml"
    call("benchmark", "ablation", "--variants", study, "--out", "runs/planted", "--jobs", "2")


if __name__ == "__main__":
    main()
