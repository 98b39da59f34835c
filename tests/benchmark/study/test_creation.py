"""Studies as `study create` makes them."""

from __future__ import annotations

from pathlib import Path

from benchmark.study.folder import open_study


def test_a_study_is_voted_in_from_its_folder(study: Path) -> None:
    store = open_study(study)
    rater, token = store.invite("one")
    assert store.rater_of(token) == rater
    seen = 0
    while (trial := store.next_trial(rater)) is not None:
        for slot in ("source", "left", "right"):
            name = store.media(rater, trial.id, slot)
            assert name is not None
            assert (study / "media" / name).is_file()
        store.show(rater, trial.id)
        assert store.record(
            rater, trial.id, dict.fromkeys(("alignment", "preservation", "aesthetics"), "left"), 1
        )
        seen += 1
    assert seen == rater.total == len(store.votes())
