"""Near duplicates among the pairs of a folder, by perceptual hashes.

Seven hashes of 64 bits are made of a pair: of the first, middle and last frame of source and target, and of
where they differ. The distance of two pairs is the number of bits by which the most different of the seven
differ.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np

from curation.quality import pairs
from curation.quality.pairs import Pair
from curation.quality.signals import Signal, Values
from curation.vlm.interface import Backend
from shards.scores import SAMPLE_NUMBER

FAR, UNRELATED = 16, 32  # bits: of what is told, and what is told of a pair without any like it
ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)
SIGNALS = (
    Signal(
        "duplicate_distance",
        "higher",
        "bits",
        f"perceptual distance to the nearest earlier sample of the task; {UNRELATED} for more than {FAR}",
        "",
        "crops and mirror images",
    ),
    Signal("duplicate_of", "neither", SAMPLE_NUMBER, "which earlier sample that is, from 0; it is kept"),
)


class NearDuplicates:
    """Compares every pair with the earlier ones of its task; needs no model.

    The same media under another instruction are no duplicate: one pair may have several.
    """

    name = "duplicates"
    signals = SIGNALS
    code = (pairs,)

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        return Backend("imagehash")

    def measure(self, pair: Pair) -> Values:
        """Nothing: see `compare`."""
        return {}

    def marks(self, pair: Pair) -> list[str]:
        """The hashes of a pair, 16 hexadecimal digits each, a digest of its pixels, one of its words."""
        import imagehash
        from PIL import Image

        def hashes(video: np.ndarray) -> list[str]:
            places = (0, len(video) // 2, len(video) - 1)
            return [str(imagehash.phash(Image.fromarray(video[t]))) for t in places]

        made = hashes(pair.target)
        made += ["0" * 16] * 3 if pair.source is None else hashes(pair.source)
        made.append(_where_changed(pair) if pair.is_aligned else "0" * 16)
        return [*made, *digests(pair)]

    def compare(self, marks: Sequence[list[str]], kinds: Sequence[str]) -> dict[str, np.ndarray]:
        """The distance of each to the nearest earlier one, and which that is. Time grows with the square."""
        distance = np.full(len(marks), np.nan, np.float32)
        of = np.full(len(marks), np.nan, np.float32)
        for numbers in compared_groups(marks, kinds):
            hashes = np.array([[int(one, 16) for one in marks[n][:7]] for n in numbers], np.uint64)
            for place, number in enumerate(numbers):
                distance[number] = UNRELATED
                near = np.flatnonzero(bits(hashes[:place, 1], hashes[place, 1]) <= FAR)
                apart = bits(hashes[near], hashes[place]).max(1) if len(near) else np.zeros(0)
                for at in np.argsort(apart, kind="stable"):
                    other = numbers[near[at]]
                    if apart[at] <= FAR and not another_wording(marks[number][7:], marks[other][7:]):
                        distance[number], of[number] = apart[at], other
                        break
        return {"duplicate_distance": distance, "duplicate_of": of}


def compared_groups(marks: Sequence[list[str]], kinds: Sequence[str]) -> list[list[int]]:
    """Numbers of the samples that have marks, a list for each kind."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for number, (mark, kind) in enumerate(zip(marks, kinds, strict=True)):
        if mark:
            groups[kind].append(number)
    return list(groups.values())


def bits(hashes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Bits in which hashes uint64 [...] differ from another or others."""
    apart = np.ascontiguousarray(hashes ^ other)
    return np.asarray(ONES[apart.view(np.uint8).reshape(*apart.shape, 8)].sum(-1, dtype=np.int64))


def _where_changed(pair: Pair) -> str:
    """64 bits: the cells of an 8x8 grid that differ by more than a quarter of the largest difference."""
    source, target = pair.both
    apart = np.mean([cv2.absdiff(source[t], target[t]).mean(-1) for t in pair.times], axis=0)
    grid = cv2.resize(apart, (8, 8), interpolation=cv2.INTER_AREA).ravel()
    marked = grid > max(grid.max() / 4, 1.0)  # what compression changes is far below
    return f"{int(''.join('01'[bit] for bit in marked.astype(int)), 2):016x}"


def digests(pair: Pair) -> list[str]:
    """Of a pair's pixels, and of its words."""
    pixels = hashlib.sha256(pair.target.tobytes())
    if pair.source is not None:
        pixels.update(pair.source.tobytes())
    words = " ".join(pair.instruction.casefold().split())
    return [pixels.hexdigest(), hashlib.sha256(words.encode()).hexdigest()]


def another_wording(digests: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two pairs, by their `digests`, have the same pixels and different words."""
    return digests[0] == other[0] and digests[1] != other[1]
