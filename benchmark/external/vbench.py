"""VBench (Huang et al. 2024): 946 prompts, sixteen dimensions, five videos each, found by their file's name.

Run `vbench evaluate --videos_path <folder>` (the package `vbench`) on what `generate` made, for all
dimensions; `collect` reads the folder of its `*_eval_results.json`.
"""

from __future__ import annotations

from pathlib import Path

from benchmark.core.item import BenchmarkError
from benchmark.external import Collected, GenerationRequest
from benchmark.statistics.intervals import Mean
from benchmark.suites.manifest import read_list
from shards.errors import EditVerseError
from shards.limits import read_json, shown

LIST = "VBench_full_info.json"
PROMPTS, SAMPLES = 946, 5
# (lowest, highest, weight) by dimension, as the published leaderboard normalises
QUALITY = {
    "subject_consistency": (0.1462, 1.0, 1.0),
    "background_consistency": (0.2615, 1.0, 1.0),
    "temporal_flickering": (0.6293, 1.0, 1.0),
    "motion_smoothness": (0.706, 0.9975, 1.0),
    "aesthetic_quality": (0.0, 1.0, 1.0),
    "imaging_quality": (0.0, 1.0, 1.0),
    "dynamic_degree": (0.0, 1.0, 0.5),
}
SEMANTIC = {
    "object_class": (0.0, 1.0, 1.0),
    "multiple_objects": (0.0, 1.0, 1.0),
    "human_action": (0.0, 1.0, 1.0),
    "color": (0.0, 1.0, 1.0),
    "spatial_relationship": (0.0, 1.0, 1.0),
    "scene": (0.0, 0.8222, 1.0),
    "appearance_style": (0.0009, 0.2855, 1.0),
    "temporal_style": (0.0, 0.364, 1.0),
    "overall_consistency": (0.0, 0.364, 1.0),
}


def wanted(data: Path, out: Path, samples: int | None = None) -> list[GenerationRequest]:
    """The videos that the program looks for: `<prompt>-<n>.mp4`, n from 0 on.

    Args:
        data: folder with `VBench_full_info.json`.
        samples: per prompt, five as published.
    """
    held, _, _ = read_list(data / LIST, "VBench's list of prompts")
    if not isinstance(held, list) or not all(isinstance(e, dict) and "prompt_en" in e for e in held):
        raise BenchmarkError(f"{data / LIST}: should be a list of objects with `prompt_en`")
    prompts = list(dict.fromkeys(str(entry["prompt_en"]) for entry in held))
    for prompt in prompts:
        if "/" in prompt or "\0" in prompt or prompt.startswith(".") or len(prompt.encode()) > 240:
            raise BenchmarkError(f"{data / LIST}: the prompt {prompt!r} cannot be a file's name")
    return [
        GenerationRequest(prompt, f"{prompt}-{n}.mp4", n, False)
        for prompt in prompts
        for n in range(samples or SAMPLES)
    ]


def collect(results: Path) -> Collected:
    """Normalised dimensions, and the quality, semantic and total score, all in percent.

    A dimension that is missing leaves its scores empty; the published script counts it as 0. The program
    gives no scores that an interval could be had of by our means for all dimensions, so there is none.
    """
    files = sorted(results.glob("*.json")) if results.is_dir() else [results]
    raw: dict[str, float] = {}
    for file in files:
        try:
            held = read_json(file)
        except (OSError, EditVerseError) as error:
            raise BenchmarkError(f"{file}: cannot be read: {error}") from error
        for name, value in held.items() if isinstance(held, dict) else ():
            if isinstance(value, list) and value and isinstance(value[0], int | float):
                if not abs(value[0]) <= 1e6:  # what is no number is refused too
                    raise BenchmarkError(f"{file}: {name}: {shown(value[0])} is no score")
                raw[name.replace(" ", "_")] = float(value[0])
    known = QUALITY | SEMANTIC
    if not raw.keys() & known.keys():
        raise BenchmarkError(f"{results}: holds no *_eval_results.json of VBench's program")
    parts = {}
    for name, (low, high, _) in known.items():
        if name in raw:
            parts[name] = Mean(100 * (raw[name] - low) / (high - low), None, None, 1, 0, 1)
    remarks = [f"no results of the dimension {name}" for name in known if name not in parts]
    quality, semantic = (_weighted(parts, of) for of in (QUALITY, SEMANTIC))
    total = None if quality is None or semantic is None else (4 * quality + semantic) / 5
    return Collected(parts, {"total": total, "quality": quality, "semantic": semantic}, remarks)


def _weighted(parts: dict[str, Mean], of: dict[str, tuple[float, float, float]]) -> float | None:
    if any(name not in parts for name in of):
        return None
    total = sum(weight * (parts[name].value or 0.0) for name, (_, _, weight) in of.items())
    return total / sum(weight for _, _, weight in of.values())
