"""VBench (Huang et al. 2024): 946 prompts, sixteen dimensions, five videos each, found by their file's name.

Of the 75 prompts of temporal_flickering it takes 25 videos, of which its `static_filter.py --videos_path
<folder>` keeps the still ones, in a folder `filtered_videos` of its own, before that dimension is scored
there. On what `generate` made run `vbench evaluate --videos_path <folder> --dimension <name>` (the package
`vbench`) once per dimension: it takes one a call. `collect` reads the folder of its `*_eval_results.json`.
Videos of five seconds and more are VBench-Long's (`vbench2_beta_long` in its repository; VBench#122).
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
FLICKER, FLICKER_SAMPLES = "temporal_flickering", 25
LONG = 5.0  # seconds, from which on VBench-Long is to be used
NOTES = (
    "before temporal_flickering is scored, VBench's static_filter.py --videos_path is run on the folder",
    "vbench evaluate takes one --dimension a call",
)
# prompts by dimension, as VBench_full_info.json lists them
LISTED = {
    "subject_consistency": 72,
    "background_consistency": 86,
    "temporal_flickering": 75,
    "motion_smoothness": 72,
    "aesthetic_quality": 93,
    "imaging_quality": 93,
    "dynamic_degree": 72,
    "object_class": 79,
    "multiple_objects": 82,
    "human_action": 100,
    "color": 85,
    "spatial_relationship": 84,
    "scene": 86,
    "appearance_style": 90,
    "temporal_style": 100,
    "overall_consistency": 93,
}
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
    """The videos that the program looks for: `<prompt>-<n>.mp4`, n from 0 on, each from noise of its own.

    Args:
        data: folder with `VBench_full_info.json`.
        samples: per prompt; as published five, and 25 of those of temporal_flickering.
    """
    held, _, _ = read_list(data / LIST, "VBench's list of prompts")
    if not isinstance(held, list) or not all(isinstance(e, dict) and "prompt_en" in e for e in held):
        raise BenchmarkError(f"{data / LIST}: should be a list of objects with `prompt_en`")
    prompts: dict[str, int] = {}
    for entry in held:
        dimensions = entry.get("dimension")
        many = FLICKER_SAMPLES if isinstance(dimensions, list) and FLICKER in dimensions else SAMPLES
        prompt = str(entry["prompt_en"])
        prompts[prompt] = max(prompts.get(prompt, 0), samples or many)
    for prompt in prompts:
        if "/" in prompt or "\0" in prompt or prompt.startswith(".") or len(prompt.encode()) > 240:
            raise BenchmarkError(f"{data / LIST}: the prompt {prompt!r} cannot be a file's name")
    return [
        GenerationRequest(prompt, f"{prompt}-{n}.mp4", n, False)
        for prompt, number in prompts.items()
        for n in range(number)
    ]


def collect(results: Path) -> Collected:
    """Normalised dimensions, and the quality, semantic and total score, all in percent.

    Read are the folder's files and those of its folders, as the published script does. A dimension that is
    missing leaves its scores empty, where that script counts 0; videos that are missing are a remark; one
    dimension in two files is refused. The program gives no scores that an interval could be had of by our
    means for all dimensions, so there is none.
    """
    raw: dict[str, float] = {}
    origin: dict[str, Path] = {}
    counts: dict[str, int | None] = {}
    for file in _files(results):
        try:
            held = read_json(file)
        except (OSError, EditVerseError) as error:
            raise BenchmarkError(f"{file}: cannot be read: {error}") from error
        for name, value in held.items() if isinstance(held, dict) else ():
            if isinstance(value, list) and value and isinstance(value[0], int | float):
                if not abs(value[0]) <= 1e6:  # what is no number is refused too
                    raise BenchmarkError(f"{file}: {name}: {shown(value[0])} is no score")
                name = name.replace(" ", "_")
                if name in raw:
                    raise BenchmarkError(
                        f"{results}: {name} is in {origin[name].name} and in {file.name}; keep one"
                    )
                raw[name], origin[name] = float(value[0]), file
                listed = value[1] if len(value) > 1 else None
                counts[name] = len(listed) if isinstance(listed, list) and listed else None
    known = QUALITY | SEMANTIC
    if not raw.keys() & known.keys():
        raise BenchmarkError(f"{results}: holds no *_eval_results.json of VBench's program")
    parts = {}
    for name, (low, high, _) in known.items():
        if name in raw:
            parts[name] = Mean(100 * (raw[name] - low) / (high - low), None, None, 1, 0, 1)
    remarks = [f"no results of the dimension {name}" for name in known if name not in parts]
    remarks += [line for name in parts if (line := _missing(name, counts[name]))]
    quality, semantic = (_weighted(parts, of) for of in (QUALITY, SEMANTIC))
    total = None if quality is None or semantic is None else (4 * quality + semantic) / 5
    return Collected(parts, {"total": total, "quality": quality, "semantic": semantic}, remarks)


def _files(results: Path) -> list[Path]:
    if not results.is_dir():
        return [results]
    places = [results, *(p for p in sorted(results.iterdir()) if p.is_dir() and p.name[0] not in "._")]
    return [file for place in places for file in sorted(place.glob("*.json"))]


def _missing(name: str, scored: int | None) -> str | None:
    """A remark where fewer videos were scored than are published: VBench warns that this is unfair."""
    wanted = LISTED[name] * SAMPLES
    if scored is None:
        return f"{name}: its results list no videos, so whether some are missing cannot be told"
    if scored >= wanted:
        return None
    after = " after the static filter" if name == FLICKER else ""
    return f"{name}: {scored} videos were scored{after}, {LISTED[name]} prompts of {SAMPLES} are {wanted}"


def _weighted(parts: dict[str, Mean], of: dict[str, tuple[float, float, float]]) -> float | None:
    if any(name not in parts for name in of):
        return None
    total = sum(weight * (parts[name].value or 0.0) for name, (_, _, weight) in of.items())
    return total / sum(weight for _, _, weight in of.values())
