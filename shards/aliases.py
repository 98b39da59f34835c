"""Names that classes had before they moved: those in files that people keep are understood for ever.

Configurations, checkpoints and run folders name classes by `class_path`; this is the one place that knows old
ones.
"""

from __future__ import annotations

from typing import Any

MOVED = {
    "benchmark.metrics.hit.EditHit": "benchmark.metrics.edit_success.EditHit",
    "benchmark.metrics.pictures.PictureJudge": "benchmark.metrics.image_judge.PictureJudge",
    "curation.annotators.endpoint.Endpoint": "curation.vlm.endpoint.Endpoint",
    "curation.annotators.qwen2_vl.Qwen2Vl": "curation.vlm.qwen2_vl.Qwen2Vl",
    "curation.describing.Measured": "curation.text.heuristic_captions.HeuristicCaptioner",
    "curation.judging.Judge": "curation.text.vlm_filter.Judge",
    "curation.writing.Writer": "curation.text.vlm_captions.Writer",
}


def current(class_path: str) -> str:
    """The name that a class has now."""
    return MOVED.get(class_path, class_path)


def renewed(value: Any) -> Any:
    """A copy of JSON or YAML values in which every `class_path` has its current name."""
    if isinstance(value, dict):
        return {
            key: current(item) if key == "class_path" and isinstance(item, str) else renewed(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [renewed(item) for item in value]
    return value
