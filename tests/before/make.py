"""How the files of this folder were made, with the code of commit 6f9a7cf: `python make.py folder`.

The last commit before the modules moved into rooms; run it there. They are what later code must read: shards,
a run that was stopped after four of its eight steps, what the whole run gave, and a benchmark run of it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from shards.writer import write_shards
from tests import conftest
from tests.terminal import ROOT, command, environment

MODEL = {
    "codec": {
        "class_path": "model.encoders.transform.TransformCodec",
        "init_args": {"keep": [[3, 1], [1, 0]]},
    },
    "dit": {"width": 16, "depth": 1, "heads": 1, "rope": {"dims": [4, 4, 4, 4]}},
    "media": {"min_area": 3072, "max_area": 3072, "frames": 9},
    "inference": {"steps": 2, "guidance": 1.0},
}
FIT = {
    "run": "run",
    "data": {"shards": ["shards"], "batch_size": 2, "token_budget": 400, "workers": 0},
    "model": MODEL,
    "optim": {"lr": 0.003, "warmup": 1},
    "train": {
        "steps": 8,
        "accelerator": "cpu",
        "precision": "32-true",
        "save_every": 4,
        "sample_every": 8,
        "samples": 1,
    },
}


def main(out: Path) -> None:
    """Fill `out`, then leave of the run what it had after four steps."""
    (out / "media").mkdir(parents=True)
    items = conftest.make_items.__wrapped__()(out / "media")  # type: ignore[attr-defined]
    write_shards(out / "shards", items, max_samples=2)
    shutil.rmtree(out / "media")
    (out / "fit.yaml").write_text(yaml.safe_dump(FIT, sort_keys=False))
    paths = environment() | {"PYTHONPATH": str(ROOT)}
    bench = ["--data", "shards", "--checkpoint", "checkpoint", "--out", "bench"]
    subprocess.run(command("model", "fit", "--config", "fit.yaml"), cwd=out, env=paths, check=True)
    (out / "run" / "checkpoint").rename(out / "checkpoint")
    subprocess.run(command("benchmark", "run", *bench), cwd=out, env=paths, check=True)
    for name in (
        "best",
        "best.json",
        "lock",
        "samples",
        "state/step-00000008",
        "summary.json",
        "tensorboard",
    ):
        path = out / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("report.html", "videos", "summary.json", "lock"):
        path = out / "bench" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    curve = out / "run" / "curve.csv"
    shutil.copy(curve, out / "curve.csv")
    curve.write_text("".join(curve.read_text().splitlines(keepends=True)[:5]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
