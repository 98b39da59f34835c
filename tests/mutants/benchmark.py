"""Wrong changes to `benchmark`."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

STATS, COMPARE = "tests/benchmark/test_stats.py", "tests/benchmark/test_compare.py"
METRICS, OUTCOME = "tests/benchmark/test_metrics.py", "tests/benchmark/test_outcome.py"

MUTANTS = (
    Mutant(
        "draws means of clusters",
        "benchmark/statistics/intervals.py",
        "sums, sizes = by_cluster(scores, [c for _, c in pairs])\n    count",
        "sums, sizes = by_cluster(scores, [c for _, c in pairs])\n"
        "    sums, sizes = sums / sizes, sizes * 0 + 1\n    count",
        (f"{STATS}::test_large_clusters_weigh_as_much_as_their_items",),
        "the interval is of another number than the mean where clusters differ in size",
    ),
    Mutant(
        "draws items",
        "benchmark/statistics/intervals.py",
        "sums, sizes = by_cluster(scores, [c for _, c in pairs])\n    count",
        "sums, sizes = by_cluster(scores, list(map(str, range(len(pairs)))))\n    count",
        (f"{STATS}::test_copies_of_an_item_in_its_cluster_do_not_narrow_the_interval",),
        "items of one clip resemble each other: the interval is too narrow",
    ),
    Mutant(
        "clusters by item",
        "benchmark/evaluation/results.py",
        "return choose_clusters([i.clip for i in items], [i.pair for i in items])",
        "return choose_clusters([i.id for i in items], [i.pair for i in items])",
        (f"{OUTCOME}::test_edits_of_one_clip_are_one_cluster",),
        "wordings of one edit are counted as independent",
    ),
    Mutant(
        "counts a failure as nought",
        "benchmark/evaluation/results.py",
        "[None if isinstance(s, Unscored) else s for s in scores], labels",
        "[0.0 if isinstance(s, Unscored) else s for s in scores], labels",
        (f"{OUTCOME}::test_a_failure_is_counted_and_is_no_score",),
        "a score that is missing is no score",
    ),
    Mutant(
        "turns a difference round",
        "benchmark/statistics/paired.py",
        "else b - a",
        "else a - b",
        (f"{COMPARE}::test_a_real_difference_is_seen_both_ways_round",),
        "it is the second system less the first",
    ),
    Mutant(
        "compares item by item as if independent",
        "benchmark/statistics/paired.py",
        "return Difference(ours, theirs, mean, sign_flip_p(sums, seed), effect)",
        "return Difference(ours, theirs, mean, sign_flip_p(values, seed), effect)",
        (f"{COMPARE}::test_whole_clusters_are_flipped",),
        "signs of whole clusters are flipped",
    ),
    Mutant(
        "takes pixels for 0 to 1",
        "benchmark/metrics/psnr.py",
        "peak=255.0",
        "peak=1.0",
        (f"{METRICS}::test_psnr_of_a_constant_offset_is_known",),
        "the peak of 8-bit pixels is 255",
    ),
    Mutant(
        "swaps inside and outside",
        "benchmark/metrics/base.py",
        'if where == "inside" else',
        'if where == "outside" else',
        (f"{METRICS}::test_psnr_of_a_constant_offset_is_known",),
        "the edit is scored by its surroundings",
    ),
    Mutant(
        "compares the background with the target's",
        "benchmark/metrics/background.py",
        "- reference.source[chosen]",
        "- reference.target[chosen]",
        (f"{METRICS}::test_a_background_is_kept_or_lost_against_the_source",),
        "preservation is against the source",
    ),
    Mutant(
        "matches frames by number",
        "benchmark/core/item.py",
        "np.arange(geometry.frames) * fps / geometry.fps",
        "np.arange(geometry.frames) * 1.0",
        (f"{METRICS}::test_frames_are_matched_by_time",),
        "results of another rate are compared with other moments",
    ),
    Mutant(
        "averages a judge's three grades",
        "benchmark/judges/judge.py",
        "return self.instruction + self.preservation + self.quality",
        "return (self.instruction + self.preservation + self.quality) // 3",
        ("tests/benchmark/test_judge.py::test_three_grades_of_three_frames",),
        "the published scale goes to 9",
    ),
    Mutant(
        "keeps a failure as a score",
        "benchmark/core/score_cache.py",
        'return {"unscored": score.reason, **used}',
        'return {"value": 0.0, **used}',
        ("tests/benchmark/test_store.py::test_scores_come_back_after_reopening",),
        "the next run reads a number where there was none",
    ),
    Mutant(
        "compares official results with the suite's own source",
        "benchmark/evaluation/item_evaluator.py",
        'if not isinstance(result, Result) or not (self.mode == "official" or item.fault):',
        "if not isinstance(result, Result) or not item.fault:",
        ("tests/benchmark/test_official.py::test_source_of_the_list_counts_in_corrected_where_it_is_there",),
        "the published program reads the source beside the result, which may be another rendition",
    ),
    Mutant(
        "converts colours accurately in the official mode",
        "benchmark/core/stored_frames.py",
        "interpolation=Interpolation.BILINEAR)",
        "interpolation=Interpolation.BILINEAR | 0x40000)",
        ("tests/benchmark/test_official.py::test_frames_are_decords",),
        "decord repeats chroma; interpolating it differs by 5 grey levels",
    ),
    Mutant(
        "gives an editor the suite's mask for the words'",
        "benchmark/systems/item_fields.py",
        'mask = self.region if name == "region" else self.mask',
        "mask = self.region",
        ("tests/benchmark/test_systems.py::test_media_are_brought_to_what_an_editor_takes",),
        "an editor is told more than the words say",
    ),
    Mutant(
        "lets noise be drift",
        "benchmark/metrics/preservation.py",
        "shift = (to_lab(edit)[beyond] - to_lab(source)[beyond]).mean(axis=0, dtype=np.float64)",
        "shift = np.abs(to_lab(edit)[beyond] - to_lab(source)[beyond]).mean(axis=0, dtype=np.float64)",
        ("tests/benchmark/test_preservation.py::test_a_tint_is_drift_and_noise_is_not",),
        "compression would count as another colour",
    ),
)
