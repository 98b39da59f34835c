"""The run: files to clips to candidates on Ray Data, whose accepted pairs `run` writes as shards.

Rows carry paths and small dictionaries. A stage never raises through Ray Data: a clip that fails comes back
with its error and is quarantined; a fault of the whole run (a full disk, a missing model) stops the run.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import inspect
import json
import os
import pkgutil
import re
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from curation.core.cache import Work, Workspace
from curation.engine import watchdog
from curation.engine.progress import RunProgress
from curation.sources import clip_filter
from curation.sources.clip_filter import ClipFilter, DuplicateIndex
from curation.sources.clips import Clip
from curation.vlm.errors import AssetError
from curation.vlm.interface import AnnotatorError
from shards.aliases import renewed
from shards.command import nearest
from shards.errors import EditVerseError
from shards.files import DISK_FAULTS, naming
from shards.hashing import digest
from shards.limits import read_yaml, shown
from shards.location import ShardError
from shards.media import MediaError
from shards.processes import background_processes, close_terminal_input, uninterrupted
from shards.resources import config_root

RUN_FAULTS = DISK_FAULTS | {errno.EACCES, errno.EPERM}  # going on would only repeat them
ATTEMPTS = 3  # workers that one clip may kill
STARTS = 3  # of Ray, which gives up after 30 seconds; a busy machine may need longer
MAX_SILENCE = 30.0  # seconds without a result after which the run says what its workers do


class RunError(EditVerseError, RuntimeError):
    """Why a run could not start or go on; one line."""


@dataclass
class Outcome:
    """What became of one clip (or of a file that could not be cut: then `clip` is None)."""

    file: str
    clip: Clip | None = None
    error: str = ""
    fault: str = ""
    refused: str = ""  # by the screen
    looked_at: dict[str, Any] = field(default_factory=dict)
    candidates: list[dict[str, Any]] = field(default_factory=list)
    work: dict[str, Work] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, int]:
        """Where it comes from, to sort by: files in order, clips as they follow in one."""
        return self.file, self.clip.start if self.clip else -1

    def to_row(self) -> dict[str, str]:
        """As a Ray Data row: one JSON column keeps the schema the same for every row."""
        return {"outcome": json.dumps(asdict(self))}

    @staticmethod
    def from_row(row: dict[str, Any]) -> Outcome:
        """Inverse of `to_row`."""
        value = json.loads(row["outcome"])
        value["clip"] = Clip(**value["clip"]) if value["clip"] else None
        value["work"] = {name: Work(**work) for name, work in value["work"].items()}
        return Outcome(**value)


def tasks() -> dict[str, str]:
    """Names of the tasks and their modules, from the files in `curation/tasks/`."""
    package = importlib.import_module("curation.tasks")
    modules = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.ispkg]
    return {name: f"{package.__name__}.{name}" for name in modules}


def default_config(task: str, preset: str = "offline") -> Path:
    """The file of a task in a preset; tasks over rendered scenes have one for both."""
    folder = config_root() / "curation"
    for_both = folder / f"{task}.yaml"
    return for_both if for_both.is_file() else folder / f"{task}.{preset}.yaml"


def load_config(task: str, path: Path) -> dict[str, Any]:
    """The YAML file of a task, checked. Raises RunError naming the task, file or field at fault."""
    known = tasks()
    if task not in known:
        raise RunError(f"unknown task {task!r}; the tasks are: {', '.join(sorted(known))}")
    if not path.is_file():
        raise RunError(f"{path}: no such config file")
    try:
        config = read_yaml(path)
    except EditVerseError as error:
        raise RunError(str(error)) from None
    config = renewed(config)
    if not isinstance(config, dict) or not str(config.get("class_path", "")).startswith(known[task] + "."):
        raise RunError(f"{path}: class_path must name a class of {known[task]}")
    return config


def build(config: dict[str, Any]) -> Any:
    """The task with its annotators from a config. Raises RunError naming the field at fault."""
    from jsonargparse import ArgumentError, ArgumentParser

    config = renewed(config)
    module, _, name = config["class_path"].rpartition(".")
    parser = ArgumentParser(exit_on_error=False)
    try:
        kind = getattr(importlib.import_module(module), name)
        if not inspect.isclass(kind) or kind.__module__ != module:  # what the module itself imports
            raise RunError(f"class_path {shown(config['class_path'])}: no task")
        parser.add_argument("--task", type=kind)
        return parser.instantiate(parser.parse_object({"task": config})).task
    except RunError:
        raise
    except (ArgumentError, AttributeError, ImportError, TypeError, ValueError, ArithmeticError) as error:
        raise RunError(f"config of {name}: {_one_line(error)}{_nearest(str(error))}") from None


def _nearest(message: str) -> str:
    """The option that an unknown one was probably meant to be, of the class that the message names last."""
    option = re.search(r"Option '(\w+)' is not accepted", message)
    classes = re.findall(r"class_path '([\w.]+)'", message)
    if option is None or not classes:
        return ""
    module, _, name = classes[-1].rpartition(".")
    known = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    return nearest(option[1], known)


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Parsers nest their messages: the outermost says where, the innermost what.
    return "; ".join(dict.fromkeys([*lines[:2], *lines[-1:]]))[:400] or type(error).__name__


class Worker:
    """One process of the run: cuts files and processes clips, with the task's annotators loaded once."""

    def __init__(self, config: dict[str, Any], workspace: str, folder: str, run: str) -> None:
        import cv2

        os.chdir(folder)  # paths in a config are relative to the folder of the command
        cv2.setNumThreads(1)
        cv2.ocl.setUseOpenCL(False)
        self.root, self.run = Path(workspace), run
        with self._noted("loading", "the task's models"):
            self.task = build(config)

    def cut(self, file: str) -> list[Outcome]:
        """The clips of a file, as outcomes without candidates."""
        space, made = self._workspace(file), [Outcome(file)]
        mark = self._attempts("cut-" + digest(file))
        if self._deaths(mark) >= ATTEMPTS:
            return [Outcome(file, error=f"{file}: its worker died {ATTEMPTS} times; the file is left out")]

        def attempt() -> None:
            units = self.task.units(file, space)
            found = [self.task.looked_at(clip, space) for clip in units]
            screen = self.task.cut.screen
            made[:] = [
                Outcome(file, clip, refused=clip_filter.reason(f, screen) if f else "", looked_at=f)
                for clip, f in zip(units, found, strict=True)
            ]

        with self._noted("reading", file):
            _guarded(attempt, made)
        mark.unlink(missing_ok=True)
        if made:
            made[0].work = space.work
        return made

    def process(self, outcome: Outcome) -> Outcome:
        """All candidates of a clip."""
        if outcome.clip is None or outcome.error or outcome.fault or outcome.refused:
            return outcome
        clip = outcome.clip
        unit = f"{outcome.file}, frames {clip.start} to {clip.stop}"
        space = self._workspace(unit)
        mark = self._attempts(clip.key)
        if self._deaths(mark) >= ATTEMPTS:
            return replace(
                outcome, error=f"{clip.source}: its worker died {ATTEMPTS} times; the clip is left out"
            )
        done = replace(outcome)

        def attempt() -> None:
            done.candidates = self.task.process(clip, space)["candidates"]

        with self._noted("editing", unit):
            _guarded(attempt, [done])
        mark.unlink(missing_ok=True)
        done.work = {**outcome.work, **space.work}
        return done

    def _attempts(self, key: str) -> Path:
        return attempts_of(self.root, self.run) / key

    def _workspace(self, unit: str) -> Workspace:
        """A workspace whose stages are noted for the watchdog, as being of a file or clip."""
        folder = attempts_of(self.root, self.run)
        return Workspace(self.root, begin=lambda stage: watchdog.note(folder, stage, unit))

    @contextlib.contextmanager
    def _noted(self, stage: str, unit: str) -> Iterator[None]:
        """Note for the watchdog what this process is at in the block."""
        folder = attempts_of(self.root, self.run)
        watchdog.note(folder, stage, unit)
        try:
            yield
        finally:
            watchdog.forget(folder)

    @staticmethod
    def _deaths(path: Path) -> int:
        """How many workers began this in this run and did not end it; counts this one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with naming(path), path.open("ab") as handle:
            handle.write(b".")
        return path.stat().st_size - 1


def _guarded(attempt: Callable[[], None], outcomes: list[Outcome]) -> None:
    """Run `attempt`; what it raises becomes the first outcome's error or fault."""
    try:
        attempt()
    except AssetError as error:
        outcomes[0].fault = str(error)
    except (MediaError, ShardError) as error:
        outcomes[0].error = str(error)
    except AnnotatorError as error:
        outcomes[0].error = f"{outcomes[0].file}: {error}"
    except OSError as error:
        reason = f"{error.filename or outcomes[0].file}: {error.strerror or error}"
        if error.errno in RUN_FAULTS:
            outcomes[0].fault = reason
        else:
            outcomes[0].error = reason
    except Exception as error:  # recorded: the clip goes to quarantine with this reason  # noqa: BLE001
        outcomes[0].error = f"{outcomes[0].file}: {type(error).__name__}: {_one_line(error)}"


def attempts_of(root: Path, run: str) -> Path:
    """Where the workers of a run mark what they begin."""
    return root / "attempts" / run


def run_local(
    files: list[str], config: dict[str, Any], workspace: Path, progress: RunProgress
) -> Generator[Outcome, None, None]:
    """All outcomes, one after the other in this process."""
    worker = Worker(config, str(workspace), os.getcwd(), uuid.uuid4().hex[:8])  # noqa: PTH109
    cut = until_fault(progress.cutting(outcome for file in files for outcome in worker.cut(file)))
    cut = drop_duplicates(cut, worker.task.cut.screen)
    progress.clips(cut)
    for outcome in cut:
        yield worker.process(outcome)


def until_fault(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """All of them, or the first with a fault of the whole run: more work would only repeat it."""
    made: list[Outcome] = []
    for outcome in outcomes:
        made.append(outcome)
        if outcome.fault:
            return [outcome]
    return made


def drop_duplicates(outcomes: list[Outcome], screen: ClipFilter) -> list[Outcome]:
    """The outcomes in the order of their files; a clip that shows what an earlier one shows is refused."""
    ordered = sorted(outcomes, key=lambda o: o.place)
    seen = DuplicateIndex(screen.alike)
    for outcome in ordered:
        hashes = outcome.looked_at.get("hashes")
        # the same bytes under two names are one clip, which the packing takes once
        if outcome.clip and hashes and not outcome.refused and seen.twin(outcome.clip.key, hashes):
            outcome.refused = "near duplicate of another clip"
    return ordered


def run_ray(
    files: list[str],
    config: dict[str, Any],
    workspace: Path,
    workers: int,
    gpus: float = 0.0,
    max_silence: float = MAX_SILENCE,
    *,
    progress: RunProgress,
) -> Generator[Outcome, None, None]:
    """All outcomes as they are ready, from `workers` processes of a Ray that lives as long as this call.

    Args:
        max_silence: seconds without a result after which it is said on stderr what the workers do.
    """
    import logging
    import warnings

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its own notes; faults come as exceptions
    import ray
    from ray.data import ActorPoolStrategy

    # Ray 2.60 has no named parameter yet for what it asks to name (max_restarts).
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*")

    run = uuid.uuid4().hex[:8]
    arguments = (config, str(workspace), os.getcwd(), run)  # noqa: PTH109
    dog = watchdog.Watchdog(attempts_of(workspace, run), max_silence)
    try:
        _start_ray(workers)
        there = ray.cluster_resources().get("GPU", 0.0)
        if gpus > there:
            raise RunError(f"--gpus {gpus:g}: no worker would ever start, this machine has {there:g} GPUs")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.max_errored_blocks = 0  # a lost block is an error, never a shorter result
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        rows: ray.data.Dataset = ray.data.from_items(
            [{"file": f} for f in files], override_num_blocks=len(files)
        )
        rows = rows.flat_map(
            _CutStage,
            fn_constructor_args=arguments,
            compute=ActorPoolStrategy(size=min(workers, len(files))),
            num_cpus=1,
            max_restarts=-1,
            max_task_retries=-1,
        )
        # All clips are known before any is worked on: twins can only be told then.
        with dog:
            cut = until_fault(progress.cutting(_outcomes(rows, dog)))
        cut = drop_duplicates(cut, build(config).cut.screen)
        progress.clips(cut)
        # One clip a block, so that the clips of one file spread over the workers.
        rows = ray.data.from_items([o.to_row() for o in cut], override_num_blocks=len(cut))
        rows = rows.map(
            _ProcessStage,  # type: ignore[arg-type]  # the stub names functions only
            fn_constructor_args=arguments,
            compute=ActorPoolStrategy(size=workers),
            num_cpus=1,
            num_gpus=gpus or None,
            max_restarts=-1,
            max_task_retries=2 * ATTEMPTS,
        )
        with watchdog.Watchdog(dog.folder, max_silence) as dog:
            yield from _outcomes(rows, dog)
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise RunError(f"Ray: {_one_line(error)}") from None
    finally:
        with uninterrupted():
            ray.shutdown()


def _start_ray(workers: int) -> None:
    """Start a Ray on this machine; RunError when it does not come up."""
    import logging

    import ray

    for _ in range(STARTS):
        try:
            with background_processes():  # workers inherit their standard input from what is started here
                ray.init(
                    num_cpus=workers,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    configure_logging=True,
                    object_store_memory=128 << 20,  # rows are small
                    runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}},
                )
            return
        except Exception as error:  # Ray has no class of its own for this
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
    raise RunError(
        f"Ray: did not start within 30 s, {STARTS} times; wait until the machine is less busy, or work "
        "without Ray: --workers 0"
    )


def _outcomes(rows: Any, dog: watchdog.Watchdog) -> Iterator[Outcome]:
    for row in rows.iter_rows():
        dog.beat()
        yield Outcome.from_row(row)


class _CutStage:
    def __init__(self, *arguments: Any) -> None:
        close_terminal_input()  # a Ray that was started elsewhere may have given it one
        self.worker = Worker(*arguments)

    def __call__(self, row: dict[str, Any]) -> list[dict[str, str]]:
        return [outcome.to_row() for outcome in self.worker.cut(row["file"])]


class _ProcessStage:
    def __init__(self, *arguments: Any) -> None:
        close_terminal_input()
        self.worker = Worker(*arguments)

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        return self.worker.process(Outcome.from_row(row)).to_row()
