"""What the benchmark's intervals cover and how often its tests reject where nothing differs; no times.

1,000 simulated data sets a line, or all outcomes where there are few. An interval of 95 % should cover 93 to
97 %; of a rate of 1 % in 20 items none can, since a set of outcomes has either 81.8 or 98.3 % of the chance.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import binom

from benchmark.statistics.correlation import correlation
from benchmark.statistics.groups import ALPHA, all_pairs
from benchmark.statistics.intervals import difference_interval, mean_interval
from benchmark.statistics.paired import sign_flip_p
from benchmark.statistics.rates import wilson
from tests.perf.measure import Figure

Ends = tuple[float | None, float | None]
Drawn = tuple[np.ndarray, np.ndarray]  # scores [N], clusters int [N]
RESAMPLES = 2000


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Every kind of interval, then the tests."""
    runs = 20 if quick else 1000
    return [*rates(), *clustered_rates(runs), *means(runs), *paired(runs), *correlations(runs), *tests(runs)]


def line(what: str, covered: float, note: str = "") -> Figure:
    """A share as a line of the table."""
    return Figure(what, None, None, "", f"{100 * covered:.1f} %{note}")


def share(runs: int, draw: Callable[[np.random.Generator], tuple[Ends, float]]) -> float:
    """Of runs, those whose interval holds the truth; one without an interval does not."""
    held = 0
    for run in range(runs):
        (low, high), truth = draw(np.random.default_rng([run, runs]))
        held += low is not None and high is not None and low <= truth <= high
    return held / runs


def rates() -> list[Figure]:
    """Exactly, over all outcomes of independent items, beside what is attainable next to 95 %."""
    made = []
    for p in (0.01, 0.05, 0.5, 0.99):
        for n in (20, 100, 200):
            chances = binom.pmf(np.arange(n + 1), n, p)
            ends = [wilson(float(k), float(n)) for k in range(n + 1)]
            covered = sum(c for c, (low, high) in zip(chances, ends, strict=True) if low <= p <= high)
            sums = {
                round(100 * float(chances[a:b].sum()), 1)
                for a in range(n + 1)
                for b in range(a + 1, n + 2)
                if 0.8 < chances[a:b].sum() < 0.999
            }
            near = sorted(sums, key=lambda s: abs(s - 95))[:2]
            note = "" if 93 <= 100 * covered <= 97 else f" (attainable: {', '.join(map(str, sorted(near)))})"
            made.append(line(f"rate {p:g}, {n} items", covered, note))
    return made


def clusters(random: np.random.Generator, count: int) -> np.ndarray:
    """One to three items each, int [N]."""
    return np.repeat(np.arange(count), random.integers(1, 4, count))


def clustered_rates(runs: int) -> list[Figure]:
    """Items of a cluster are alike with an intraclass correlation of 0.3."""
    made = []
    for p in (0.05, 0.5):
        for count in (20, 100):

            def draw(random: np.random.Generator, p: float = p, count: int = count) -> tuple[Ends, float]:
                label = clusters(random, count)
                own = random.beta(p * 0.7 / 0.3, (1 - p) * 0.7 / 0.3, count)
                hits = (random.random(len(label)) < own[label]).astype(float)
                found = mean_interval(hits.tolist(), [str(c) for c in label], bounds=(0, 1))
                return (found.low, found.high), p

            made.append(line(f"rate {p:g}, {count} clusters of 1 to 3", share(runs, draw)))
    return made


def normal(random: np.random.Generator, count: int) -> Drawn:
    """Graded scores, mean 0."""
    label = clusters(random, count)
    return random.normal(0, 1, count)[label] + random.normal(0, 0.5, len(label)), label


def skewed(random: np.random.Generator, count: int) -> Drawn:
    """Gamma of shape 4, mean 0."""
    label = clusters(random, count)
    return random.gamma(4, 0.5, count)[label] - 2 + random.normal(0, 0.5, len(label)), label


def lognormal(random: np.random.Generator, count: int) -> Drawn:
    """Very skewed: sigma 1, less its mean; independent items."""
    return np.exp(random.normal(0, 1, count)) - np.exp(0.5), np.arange(count)


def sparse(random: np.random.Generator, count: int) -> Drawn:
    """Nought but for 15 % of clusters, whose items are uniform up to 1; less the mean, 0.075."""
    label = clusters(random, count)
    some = (random.random(count) < 0.15)[label]
    return np.where(some, random.random(len(label)), 0.0) - 0.075, label


def means(runs: int) -> list[Figure]:
    """By distribution and number of clusters."""
    made = []
    for kind, bounds in ((normal, None), (skewed, None), (lognormal, None), (sparse, (-0.075, 0.925))):
        for count in (8, 20, 100):

            def draw(
                random: np.random.Generator,
                kind: Callable[..., Drawn] = kind,
                bounds: tuple[float, float] | None = bounds,
                count: int = count,
            ) -> tuple[Ends, float]:
                scores, label = kind(random, count)
                names = [str(c) for c in label]
                found = mean_interval(scores.tolist(), names, bounds=bounds, resamples=RESAMPLES)
                return (found.low, found.high), 0.0

            made.append(line(f"mean, {kind.__name__}, {count} clusters", share(runs, draw)))
    return made


def paired(runs: int) -> list[Figure]:
    """Two systems on the same items: graded scores, and hits that agree on half of the items."""
    made = []
    for count in (20, 100):

        def graded(random: np.random.Generator, count: int = count) -> tuple[Ends, float]:
            (first, label), gap = skewed(random, count), random.gamma(2, 0.5, count)
            second = first + gap[label] + random.normal(0, 0.3, len(first))
            gaps = (second - first).tolist()
            found = difference_interval(gaps, [str(c) for c in label], resamples=RESAMPLES)
            return (found.low, found.high), 1.0

        made.append(line(f"difference, skewed, {count} clusters", share(runs, graded)))
    for p, q in ((0.5, 0.5), (0.5, 0.6), (0.05, 0.15), (0.05, 0.05)):
        for n in (20, 100, 200):

            def hits(
                random: np.random.Generator, p: float = p, q: float = q, n: int = n
            ) -> tuple[Ends, float]:
                one, other = random.random(n), random.random(n)
                other = np.where(random.random(n) < 0.5, one, other)
                gaps = ((other < q).astype(float) - (one < p)).tolist()
                found = difference_interval(gaps, [str(k) for k in range(n)], bounds=(0, 1))
                return (found.low, found.high), q - p

            made.append(line(f"difference of rates {p:g} and {q:g}, {n} items", share(runs, hits)))
    return made


def correlations(runs: int) -> list[Figure]:
    """Pearson: normal scores in clusters of three, and the same through an exponential."""
    made = []
    for r in (0.0, 0.5, 0.9):
        for count in (20, 100):
            for skew in (False, True):

                def draw(
                    random: np.random.Generator, r: float = r, count: int = count, skew: bool = skew
                ) -> tuple[Ends, float]:
                    label = np.repeat(np.arange(count), 3)
                    own, items = random.normal(size=(2, count)), random.normal(size=(2, 3 * count))
                    x, other = 0.6**0.5 * own[:, label] + 0.4**0.5 * items
                    y = r * x + (1 - r * r) ** 0.5 * other
                    truth = r
                    if skew:
                        x, y = np.exp(x / 2), np.exp(y / 2)
                        truth = float(np.expm1(r / 4) / np.expm1(1 / 4))
                    found = correlation(x.tolist(), y.tolist(), [str(c) for c in label])
                    return (found.low, found.high), truth

                kind = "skewed" if skew else "normal"
                made.append(line(f"correlation {r:g}, {kind}, {count} clusters of 3", share(runs, draw)))
    return made


def tests(runs: int) -> list[Figure]:
    """How often p is at most 0.05 where nothing differs: one pair, and any of all pairs after Holm."""
    made = []
    for count in (10, 20, 100):
        ps = [sign_flip_p(np.random.default_rng([run, count]).normal(size=count)) for run in range(runs)]
        made.append(line(f"one pair, {count} clusters: rejected", float(np.mean(np.array(ps) <= ALPHA))))
    for systems in (3, 6):
        for count in (20, 100):
            wrong = 0
            for run in range(runs):
                random = np.random.default_rng([run, systems, count])
                own = random.normal(size=count)
                scores = {str(s): (own + random.normal(size=count)).tolist() for s in range(systems)}
                found = all_pairs(scores, [str(c) for c in range(count)], resamples=8)
                wrong += any(p.corrected is not None and p.corrected <= ALPHA for p in found.pairs)
            made.append(line(f"{systems} systems, {count} items, Holm: any rejected", wrong / runs))
    return made
