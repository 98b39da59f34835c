"""Settings of a few-step distillation, apart from the code that uses them so that `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from model.config import InferenceConfig
from shards.errors import SettingError
from shards.limits import MAX_SOLVER_STEPS, in_range


@dataclass(frozen=True)
class DistillConfig:
    """What a student that edits in few steps without guidance learns, and from whom.

    Attributes:
        steps: of the student, evenly spread over the solver's (shifted) times.
        teacher: checkpoint that teaches; None is train.init_from itself. It must read and write the same
            tokens as the student: same codec, text encoder, sequence layout and family.
        teacher_steps: of the teacher over all times, a multiple of `steps`; a visit takes those of one of the
            student's steps.
        guidance: of the teacher on the text; None is the teacher's own default, 1 is none.
        times: where within a step the student learns: at its `start`, which is all that it is asked when it
            edits, or anywhere `within` it on the straight line to where the teacher ends, as in PeRFlow; then
            other numbers of steps work too.
    """

    steps: int = 4
    teacher: str | None = None
    teacher_steps: int = 40
    guidance: float | None = None
    times: Literal["start", "within"] = "start"

    def __post_init__(self) -> None:
        in_range("distill.steps", self.steps, 1, MAX_SOLVER_STEPS)
        in_range("distill.teacher_steps", self.teacher_steps, 1, MAX_SOLVER_STEPS)
        if self.teacher_steps % self.steps:
            raise SettingError(
                f"distill.teacher_steps: {self.teacher_steps} is no multiple of distill.steps {self.steps}"
            )
        if self.guidance is not None:
            in_range("distill.guidance", self.guidance, -1000, 1000)

    def inference(self, held: InferenceConfig) -> InferenceConfig:
        """Defaults of the student's edits, in place of `held`: its steps by Euler's method, unguided."""
        plain = InferenceConfig(steps=self.steps, guidance=1.0, solver="euler")
        return replace(plain, negative=held.negative)
