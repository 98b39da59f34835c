"""What the filter's grades accept: a pair below a threshold is refused by the criterion's name."""

from __future__ import annotations

from typing import Any

import pytest

from curation.text.vlm_filter import CRITERIA, Judge


def test_a_grade_below_its_threshold_refuses_the_pair() -> None:
    nobody: Any = None  # reasons need no model
    judge = Judge(nobody, {"sharpness": 6.0, "aesthetics": 4.0})
    good = dict.fromkeys(CRITERIA, 7.0)
    assert judge.reason(good) == ""
    assert judge.reason({**good, "sharpness": 6.0}) == ""
    assert judge.reason({**good, "sharpness": 5.9}) == "judged low on sharpness"
    assert judge.reason({**good, "aesthetics": 0.0}) == "judged low on aesthetics"
    assert judge.reason({**good, "artifacts": 0.0}) == ""  # has no threshold
    with pytest.raises(ValueError, match="'beauty' is none of"):
        Judge(nobody, {"beauty": 5.0})
    with pytest.raises(ValueError, match="content_preservation is called context_preservation now"):
        Judge(nobody, {"content_preservation": 5.0})
