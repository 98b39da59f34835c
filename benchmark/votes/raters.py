"""The raters: whom the study's own rule leaves out, agreement with themselves, and the side they prefer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmark.statistics.two_way import TwoWayMean, share_interval
from benchmark.study.definition import Exclusion, StudyDefinition
from benchmark.study.records import Vote
from benchmark.votes.ballots import Ballots, side_sign

GOLD = ("gold_tie", "gold_loss")


@dataclass(frozen=True)
class RaterCheck:
    """What the rule looks at, for one rater.

    Attributes:
        rater: a name that tells nothing about them, `R` and the number of their list; label: their own.
        votes: of all kinds.
        gold_right, gold_answers: answers to attention checks, over all criteria.
        repeats_equal, repeats_answers: answers to pairs that were shown again.
        seconds: median time for a pair; None without votes on pairs.
        reasons: why they are left out, a sentence each; empty if they are not.
    """

    rater: str
    label: str
    votes: int
    gold_right: int
    gold_answers: int
    repeats_equal: int
    repeats_answers: int
    seconds: float | None
    reasons: list[str] = field(default_factory=list)


def rule_text(rule: Exclusion) -> str:
    """The rule in a sentence."""
    parts = []
    if rule.min_gold > 0:
        parts.append(f"less than {100 * rule.min_gold:g} % of answers to attention checks right")
    if rule.min_repeats > 0:
        parts.append(f"less than {100 * rule.min_repeats:g} % of repeated answers equal")
    if rule.min_seconds > 0:
        parts.append(f"a median time for a pair below {rule.min_seconds:g} s")
    if not parts:
        return "The study has no rule by which raters are left out."
    return f"The rule was fixed before the first vote: a rater is left out with {', or '.join(parts)}."


def pseudonym(vote: Vote) -> str:
    """A name for a rater that can be published."""
    return f"R{vote.seat + 1:02d}"


def rater_checks(definition: StudyDefinition, votes: Sequence[Vote]) -> list[RaterCheck]:
    """Every rater with votes, by seat, judged by the rule that was fixed with the study.

    A rater who has no attention checks or repeats yet is not judged by them.
    """
    by_rater: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_rater[vote.rater].append(vote)
    checks = []
    for label, mine in sorted(by_rater.items(), key=lambda entry: entry[1][0].seat):
        gold = [v.answers[q] == v.expected for v in mine if v.kind in GOLD for q in v.answers]
        again = [same for _, _, same in repeated(mine)]
        times = [v.seconds for v in mine if v.kind in ("pair", "repeat")]
        check = RaterCheck(
            pseudonym(mine[0]),
            label,
            len(mine),
            sum(gold),
            len(gold),
            sum(again),
            len(again),
            float(np.median(times)) if times else None,
        )
        check.reasons.extend(_reasons(definition.exclusion, check))
        checks.append(check)
    return checks


def _reasons(rule: Exclusion, check: RaterCheck) -> list[str]:
    reasons = []
    for right, answers, least, what in (
        (check.gold_right, check.gold_answers, rule.min_gold, "attention checks right"),
        (check.repeats_equal, check.repeats_answers, rule.min_repeats, "repeated answers equal"),
    ):
        if answers and right / answers < least:
            reasons.append(f"{right} of {answers} {what}, below {least:g}")
    if check.seconds is not None and check.seconds < rule.min_seconds:
        reasons.append(f"a median of {check.seconds:.1f} s for a pair, below {rule.min_seconds:g}")
    return reasons


def repeated(votes: Sequence[Vote]) -> list[tuple[Vote, str, bool]]:
    """Each answer to a pair that was shown again: the vote, the criterion, and whether it was the same.

    Sides may have changed between: what is compared is the method preferred.
    """
    known = {vote.trial: vote for vote in votes}
    found = []
    for vote in votes:
        before = known.get(vote.repeats) if vote.repeats is not None else None
        if vote.kind == "repeat" and before is not None:
            turn = 1 if before.left == vote.left else -1
            for criterion, side in vote.answers.items():
                same = side_sign(side) * turn == side_sign(before.answers[criterion])
                found.append((vote, criterion, same))
    return found


def self_agreement(votes: Sequence[Vote], criterion: str | None) -> TwoWayMean:
    """Share of answers that raters gave again, by one criterion or all."""
    found = [(vote, same) for vote, of, same in repeated(votes) if criterion in (None, of)]
    return share_interval(
        [same for _, same in found], [vote.rater for vote, _ in found], [vote.cluster for vote, _ in found]
    )


def left_share(votes: Ballots, criterion: str) -> TwoWayMean:
    """Share of the left among answers that prefer a side; 0.5 where sides do not matter."""
    outcome = votes.outcome(criterion)
    decided = outcome != 0
    left = (outcome == 1) != votes.flipped
    return share_interval(left[decided], votes.raters[decided], votes.clusters[decided])
