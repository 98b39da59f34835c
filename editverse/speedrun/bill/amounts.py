"""How much a size does: the numbers of `bill.yaml` and of the trainings beside it, as units of each stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from editverse.speedrun.bill.costs import STAGES
from editverse.speedrun.settings import folder_of, gpu_options, read_settings
from shards.errors import ConfigError, SettingError
from shards.limits import parse_yaml, read_yaml, shown
from shards.serialization import from_dict

AMOUNTS = "bill.yaml"
TRAININGS = ("stage1", "stage2", "distill")


@dataclass(frozen=True)
class Rates:
    """What estimates take for granted of machines, networks and models that nobody here has timed.

    Attributes:
        tflops: 10^12 operations a second of a GPU in the transformer; encoder_tflops: in the autoencoder.
        cores: of the processor for each GPU; download_mib: MiB a second from the hub.
        judge_seconds, judge_picture_seconds: GPU-seconds of a language model's look at a pair of videos, and
            of pictures.
        picture: what a pair of pictures takes of the cores and of the disk, of what one of videos does.
        cut_core_seconds: to cut, screen and write a curated candidate, beside its models.
        import_core_seconds, grade_core_seconds: for each pair; timed on six pairs of 81 frames of 480x832 of
            vtest.avi, 2.95 and 8.1 seconds of a core of an Intel Xeon under load. bench_core_seconds: for
            each edit, assumed.
        metric_seconds: GPU-seconds of the metrics for an edit.
        start_hours: of the clock, to load and compile a training.
        pair_mib: of a stored pair; candidate_mib: of a candidate in the workspace; edit_mib: of an edit.
    """

    tflops: float = 400.0
    encoder_tflops: float = 100.0
    cores: int = 16
    download_mib: float = 100.0
    judge_seconds: float = 6.0
    judge_picture_seconds: float = 2.0
    picture: float = 0.1
    cut_core_seconds: float = 10.0
    import_core_seconds: float = 3.0
    grade_core_seconds: float = 8.0
    bench_core_seconds: float = 20.0
    metric_seconds: float = 10.0
    start_hours: float = 0.1
    pair_mib: float = 4.0
    candidate_mib: float = 20.0
    edit_mib: float = 3.0


@dataclass(frozen=True)
class Amounts:
    """`bill.yaml`: what the other files of a size do not say.

    Attributes:
        clips: that curation cuts its windows from, `clips_count` of the settings when that is there;
            clip_mib: of one.
        candidates: that each run of curation.yaml makes of so many clips; where `clips_count` is another
            number, all but those of rendered scenes follow it. accepted: the share of them that passes.
        models_gib: of weights that are fetched for curation and gates.
        imported: pairs of others, imported_pictures of them pictures; import_gib: that are fetched for them.
            With `commercial: false` those of `noncommercial` come on top.
        graded: samples that the gates measure, those curated and imported when None; judged: the share that
            a language model looks at; clean: the share that passes.
        encoded: samples whose latents are made, all when None.
        pictures: share of the visits of each training that are pairs of pictures.
        items: held-out items that each system edits; systems: the base, both stages, and the distilled.
        edit_steps, edit_guided: of all systems but the distilled one.
        rates: what is taken for granted.
    """

    clips: int
    candidates: dict[str, Any]
    imported: int
    items: int
    imported_pictures: int = 0
    clip_mib: float = 8.0
    accepted: float = 1.0
    import_gib: float = 0.0
    models_gib: float = 0.0
    noncommercial: dict[str, Any] = field(default_factory=dict)
    graded: int | None = None
    judged: float = 1.0
    clean: float = 1.0
    encoded: int | None = None
    pictures: dict[str, Any] = field(default_factory=dict)
    systems: int = 4
    edit_steps: int = 50
    edit_guided: bool = True
    rates: Rates = field(default_factory=Rates)

    def __post_init__(self) -> None:
        shares = {"accepted": self.accepted, "clean": self.clean, "judged": self.judged}
        shares |= {f"pictures.{name}": share for name, share in self.pictures.items()}
        for name, share in shares.items():
            if not isinstance(share, int | float) or not 0 <= share <= 1:
                raise SettingError(f"{name}: a share from 0 to 1, got {shown(share)}")
        for name, count in self.candidates.items():
            if type(count) is not int or count < 0:
                raise SettingError(f"candidates.{name}: a whole number, got {shown(count)}")
        if self.imported_pictures > self.imported:
            raise SettingError(f"imported_pictures: {self.imported_pictures} of {self.imported} imported")
        for name in ("clips", "imported", "imported_pictures", "items", "systems"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name}: must not be below 0, got {getattr(self, name)}")

    @property
    def curated(self) -> float:
        """Pairs that curation accepts."""
        return self.accepted * sum(self.candidates.values())

    @property
    def samples(self) -> float:
        """Samples of stage 1, curated and imported."""
        return self.curated + self.imported

    @property
    def pictured(self) -> float:
        """The share of those that are pictures."""
        return self.imported_pictures / self.samples if self.samples else 0.0

    def mean(self, video: float, picture: float) -> float:
        """Of one number of a pair of videos and another of one of pictures, the mean over all samples."""
        return video * (1 - self.pictured) + picture * self.pictured


@dataclass(frozen=True)
class SizePlan:
    """All that a bill is made of.

    Attributes:
        size: as it was asked for; folder: of its files; gpus: 0 for none.
        base: weights to start from.
        amounts: of `bill.yaml`.
        trainings: settings of stage1, stage2 and distill, with what `by_gpus` changes.
    """

    size: str
    folder: Path
    gpus: int
    base: str
    amounts: Amounts
    trainings: dict[str, dict[str, Any]]

    @property
    def units(self) -> dict[str, dict[str, float]]:
        """By stage: what it does, the number that its time grows with."""
        a = self.amounts
        graded = a.samples if a.graded is None else a.graded
        visits = {name: {"visits": float(visits_of(settings))} for name, settings in self.trainings.items()}
        units: dict[str, dict[str, float]] = {
            "base": {"bases": 1.0},
            "clips": {"clips": float(a.clips)},
            "curation": {"candidates": float(sum(a.candidates.values()))},
            "imports": {"pairs": float(a.imported)},
            "gates": {"samples": float(graded)},
            "latents": {"samples": float(a.samples if a.encoded is None else a.encoded)},
            **visits,
            "bench": {"edits": float(a.items * a.systems)},
            "report": {"samples": float(a.samples)},
        }
        return {stage: units[stage] for stage in STAGES}


def visits_of(training: Mapping[str, Any]) -> int:
    """Samples that a training visits: its steps times its batch, as far as they are not the defaults."""
    steps = (training.get("train") or {}).get("steps", 56_000)
    batch = (training.get("data") or {}).get("batch_size", 64)
    return int(steps) * int(batch)


def read_size(size: str, gpus: int | None = None, changes: Mapping[str, Any] = {}) -> SizePlan:
    """The amounts of a size.

    Args:
        size: a name in configs/speedrun, or a folder with the same files.
        gpus: of the run; those of its settings when None.
        changes: replace settings.

    Raises:
        SettingError: no such size.
        ConfigError: a file is absent or says something else; it is named.
    """
    folder = folder_of(size)
    settings = read_settings(size, changes)
    count = int(settings.get("gpus") or 0) if gpus is None else gpus
    if count < 0:
        raise SettingError(f"--gpus: must not be below 0, got {count}")
    options = gpu_options(settings, count)
    trainings = {}
    for name in TRAININGS:
        trainings[name] = _mapping(folder / f"{name}.yaml")
        words = options.get(name, [])
        for option, value in zip(words[::2], words[1::2], strict=True):
            _set(trainings[name], option.removeprefix("--").split("."), parse_yaml(value, option))
    path = folder / AMOUNTS
    told = _mapping(path)
    entries = told.pop("by_gpus", None) or {}
    fitting = [number for number in entries if number <= max(1, count)]
    of_gpus = entries[max(fitting)] if fitting else {}
    amounts: Amounts = from_dict(Amounts, told | of_gpus, str(path))
    amounts = _by_settings(amounts, settings, folder)
    return SizePlan(size, folder, count, str(settings.get("base")), amounts, trainings)


def _by_settings(amounts: Amounts, settings: Mapping[str, Any], folder: Path) -> Amounts:
    """Amounts for as many clips as the settings ask for, and with what they let in."""
    count = settings.get("clips_count")
    if type(count) is int and count > 0 and amounts.clips and count != amounts.clips:
        runs = _mapping(folder / "curation.yaml").get("runs") or {}
        rendered = {n for n, run in runs.items() if str(run.get("task", "")).startswith("cg_")}
        scale = count / amounts.clips
        candidates = {
            name: n if name in rendered else round(n * scale) for name, n in amounts.candidates.items()
        }
        amounts = replace(amounts, clips=count, candidates=candidates)
    if settings.get("commercial") is False and amounts.noncommercial:
        more = amounts.noncommercial
        amounts = replace(
            amounts,
            imported=amounts.imported + int(more.get("imported", 0)),
            import_gib=amounts.import_gib + float(more.get("import_gib", 0.0)),
        )
    return amounts


def _mapping(path: Path) -> dict[str, Any]:
    try:
        value = read_yaml(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: not found; the bill needs it") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected names and values, got {shown(value)}")
    return value


def _set(settings: dict[str, Any], keys: list[str], value: Any) -> None:
    *outer, last = keys
    for key in outer:
        inner = settings.get(key)
        settings[key] = inner = {} if inner is None else inner
        settings = inner
    settings[last] = value
