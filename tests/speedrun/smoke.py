"""The tiny speedrun made smaller still, for tests: every stage real, a minute or two in all."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

TINY = Path(__file__).resolve().parents[2] / "configs" / "speedrun" / "tiny"
SCENES = {"curation/removal.yaml": 10, "public/removal.yaml": 6}
STEPS = {"stage1.yaml": 4, "stage2.yaml": 3, "distill.yaml": 2}


def smoke(folder: Path, **settings: Any) -> Path:
    """Write the configurations of a smoke run: the tiny ones with fewer scenes and steps, and no real clips.

    Args:
        settings: in place of those of settings.yaml, or beside them.
    """
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("study", "README.md"))
    for name, scenes in SCENES.items():
        change(folder / name, lambda value, n=scenes: value["init_args"].update(scenes=n))
    for name, steps in STEPS.items():
        change(folder / name, lambda value, n=steps: value["train"].update(steps=n, save_every=2))
    change(folder / "distill.yaml", lambda value: value["distill"].update(teacher_steps=4))
    change(folder / "curation.yaml", lambda value: value["runs"].pop("people"))
    for name, key in (("mixture_all.yaml", "rows"), ("mixture_clean.yaml", "change")):
        change(folder / name, lambda value, key=key: value[key].pop("people", None))
    change(folder / "bench.yaml", lambda value: value.update(limit=2))

    def less(value: dict[str, Any]) -> None:
        value.update(
            {"benches": ["curated/removal"], "least_curated": 1, "least_clean": 1, "calibrate_on": []}
            | settings
        )

    change(folder / "settings.yaml", less)
    rules = {"leftover": {"max": 0.6}}  # a dozen pairs are too few for a calibration
    (folder / "gates.yaml").write_text(yaml.safe_dump({"tasks": {"object_removal": rules}}))
    return folder


def change(path: Path, by: Callable[[dict[str, Any]], object]) -> None:
    """Change a YAML file in place."""
    value = yaml.safe_load(path.read_text())
    by(value)
    path.write_text(yaml.safe_dump(value, sort_keys=False))


if __name__ == "__main__":
    print(smoke(Path(sys.argv[1])))
