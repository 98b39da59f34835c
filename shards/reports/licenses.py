"""What a licence's words say of commercial use, and the licences of models that older samples do not tell.

Read conservatively, and no legal advice: where the words allow it for one checkpoint and forbid it for
another, or somebody is not named whose right it would be, the answer is "unknown" with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from shards.sample import Provenance, Step

Use = Literal["yes", "no", "unknown"]
UNKNOWN = "unknown"

# What is written of a licence -> whether it allows commercial use, and why; the first that fits counts.
FORBIDS = re.compile(
    r"\bNC\b|non[- ]?commercial|research (use )?only|academic (use )?only|S-Lab", re.IGNORECASE
)
OPEN_QUESTIONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"owner is not named|not the owner", re.I), "the recording's owner is not named"),
    (re.compile(r"^unknown|not stated|none is stated|no licen[cs]e", re.I), "no licence is stated"),
    (re.compile(r"provider says", re.I), "the endpoint's provider decides, and which one is not told"),
    (re.compile(r"that of the checkpoint", re.I), "it depends on the checkpoint"),
    (re.compile(r"OpenAI|GPT-?4o|gpt-image|Gemini|Claude", re.I), "its provider's terms on outputs apply"),
    (re.compile(r"\bND\b", re.I), "derivatives may not be shared"),
)
ALLOWS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"CC0|public domain|Unlicense|PDDL", re.I), ""),
    (re.compile(r"Apache|\bMIT\b|BSD|ISC|this project", re.I), ""),
    (re.compile(r"CC[- ]BY[- ]SA", re.I), "share alike"),
    (re.compile(r"CC[- ]BY|ODC[- ]BY|CDLA", re.I), "with attribution"),
    (re.compile(r"OpenRAIL", re.I), "with its restrictions on use"),
    (re.compile(r"SAM License", re.I), "with its restrictions on use"),
    (re.compile(r"\b[AL]?GPL", re.I), "of the program; its output is free"),
)

# Backend -> licence of its model or code, and where that is stated: for samples of before, which do not tell.
BACKENDS: dict[str, tuple[str, str]] = {
    "ssdlite-opencv": ("MIT", "the package that brings pedestrian_ssdlite"),
    "blazepose-litert": ("Apache-2.0", "github.com/google-ai-edge/mediapipe, LICENSE"),
    "dis-flow-iou": ("Apache-2.0 (OpenCV)", "github.com/opencv/opencv, LICENSE"),
    "corner-motion": ("Apache-2.0 (OpenCV)", "github.com/opencv/opencv, LICENSE"),
    "homography-median": ("Apache-2.0 (OpenCV)", "github.com/opencv/opencv, LICENSE"),
    "filters-opencv": ("Apache-2.0 (OpenCV)", "github.com/opencv/opencv, LICENSE"),
    "canny-opencv": ("Apache-2.0 (OpenCV)", "github.com/opencv/opencv, LICENSE"),
    "opencv": ("Apache-2.0 (OpenCV)", "github.com/opencv/opencv, LICENSE"),
    "mujoco": ("Apache-2.0", "github.com/google-deepmind/mujoco, LICENSE"),
    "median-plate": ("this project", "LICENSE"),
    "boxed-poses": ("Apache-2.0", "github.com/google-ai-edge/mediapipe, LICENSE"),
    "measured": ("this project", "LICENSE"),
    "recipe": ("this project", "LICENSE"),
    "groundingdino-py": ("Apache-2.0", "github.com/IDEA-Research/GroundingDINO, LICENSE"),
    "sam2": ("Apache-2.0", "github.com/facebookresearch/sam2, LICENSE"),
    "rtmlib": ("Apache-2.0", "github.com/open-mmlab/mmpose, LICENSE"),
}
MODELS: dict[str, tuple[str, str]] = {
    "diffueraser": (
        "Apache-2.0; its base Stable Diffusion 1.5: CreativeML OpenRAIL-M; its prior ProPainter: NTU S-Lab "
        "License 1.0, non-commercial",
        "github.com/lixiaowen-xw/DiffuEraser and github.com/sczhou/ProPainter, README and LICENSE",
    ),
    "wan-vace": ("Apache-2.0", "github.com/ali-vilab/VACE, LICENSE.txt"),
    "recammaster": (
        "MIT; its base Wan 2.1: Apache-2.0",
        "github.com/KwaiVGI/ReCamMaster, LICENSE",
    ),
    "step1x-edit": ("Apache-2.0", "github.com/stepfun-ai/Step1X-Edit, LICENSE"),
    "minimax-remover": ("not stated", "github.com/zibojia/MiniMax-Remover states none"),
    "grounding-dino": ("Apache-2.0", "github.com/IDEA-Research/GroundingDINO, LICENSE"),
    "sam2-video": ("Apache-2.0", "github.com/facebookresearch/sam2, LICENSE"),
    "sam3-video": ("SAM License", "github.com/facebookresearch/sam3, LICENSE"),
    "sam3-image": ("SAM License", "github.com/facebookresearch/sam3, LICENSE"),
    "sam3-tracker-video": ("SAM License", "github.com/facebookresearch/sam3, LICENSE"),
    "depth-anything-v2": (
        "Apache-2.0 (Small), CC-BY-NC-4.0 (Base, Large)",
        "github.com/DepthAnything/Depth-Anything-V2, README",
    ),
    "video-depth-anything": (
        "Apache-2.0 (vits), CC-BY-NC-4.0 (vitb, vitl)",
        "github.com/DepthAnything/Video-Depth-Anything, README",
    ),
}


@dataclass(frozen=True)
class Verdict:
    """Whether something may be used commercially, and why."""

    use: Use
    reason: str


def verdict_of(license: str) -> Verdict:
    """What the words of a licence say; parts after semicolons must all allow it."""
    parts = re.split(r";(?![^()]*\))", license.strip() or UNKNOWN)  # not those inside of brackets
    return worst(_verdict_of_part(part.strip()) for part in parts)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of things used together: "no" before "unknown" before "yes", the first of its kind."""
    found = list(verdicts)
    for use in ("no", "unknown"):
        for one in found:
            if one.use == use:
                return one
    limits = dict.fromkeys(one.reason for one in found if one.reason)
    return Verdict("yes", ", ".join(limits))


def _verdict_of_part(part: str) -> Verdict:
    allowing = [why for pattern, why in ALLOWS if pattern.search(FORBIDS.sub("", part))]
    if FORBIDS.search(part):
        clauses = [clause for clause in part.split(",") if not FORBIDS.search(clause)]
        if any(pattern.search(clause) for clause in clauses for pattern, _ in ALLOWS):
            return Verdict("unknown", f"it depends on the checkpoint: {part}")
        return Verdict("no", f"non-commercial: {part}")
    for pattern, why in OPEN_QUESTIONS:
        if pattern.search(part):
            return Verdict("unknown", why)
    if allowing:
        return Verdict("yes", allowing[0])
    return Verdict("unknown", f"not among the licences that are known here: {part}")


def license_of_step(step: Step) -> tuple[str, str]:
    """The licence of what a step used, and who says so: "sample", or the source of the table here.

    "unknown" and "" where nobody does.
    """
    if step.license:
        return step.license, "sample"
    if "import" in (step.stage, step.backend):  # a program of ours; what it read is under the clip's licence
        return "this project", "LICENSE"
    if step.model in MODELS:
        return MODELS[step.model]
    if step.backend in BACKENDS:
        return BACKENDS[step.backend]
    return UNKNOWN, ""


def commercial_use(provenance: Provenance) -> Verdict:
    """Of a sample: its clip's licence and those of all models that it went through.

    The model's terms are taken to bind what it made, or was asked to judge, too.
    """
    clip = verdict_of(provenance.clip.license)
    verdicts = [Verdict(clip.use, f"clip: {clip.reason}" if clip.use != "yes" else clip.reason)]
    for step in provenance.steps:
        one = verdict_of(license_of_step(step)[0])
        name = step.model or step.backend
        verdicts.append(Verdict(one.use, f"{name}: {one.reason}" if one.use != "yes" else one.reason))
    return worst(verdicts)
