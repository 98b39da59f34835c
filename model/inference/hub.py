"""Publishing: which files of a model go to the model hub, and sending them there in one commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.inference import wan_lora
from model.inference.bundled import CONFIG, INDEX, PARTS, is_pipeline
from model.inference.model_card import CARD
from model.inference.pretrained import PICKLES, SUMS, WEIGHTS, find_checkpoint
from shards.errors import ConfigError, EditVerseError, first_line
from shards.limits import read_json, shown


def files_to_publish(path: Path) -> dict[str, Path]:
    """The files of a model by their names in a repository; none of them is read but `config.json`.

    Args:
        path: a run's folder, a checkpoint's, an adapter's to Wan's family, or a pipeline's in diffusers'
            layout. Of a run that trained such an adapter it is the adapter.

    Raises:
        ConfigError: nothing of the kind is there, or it would be of no use elsewhere: a checkpoint of Wan's
            family is to be exported first, and a configuration must not name folders of this machine.
    """
    for folder in (path / "adapter", path):
        if (folder / wan_lora.FIRST).is_file():
            return {file.name: file for file in wan_lora.adapter_files(folder)}
    folder = find_checkpoint(path)
    if is_pipeline(folder):
        inner = [f for part in PARTS for f in sorted((folder / part).rglob("*")) if f.is_file()]
        files = [folder / name for name in (INDEX, CONFIG) if (folder / name).is_file()] + inner
        return {
            file.relative_to(folder).as_posix(): file
            for file in files
            if file.suffix not in PICKLES and not file.name.startswith(".")
        }
    config = read_json(folder / CONFIG)
    transformer = config.get("transformer") if isinstance(config, dict) else None
    # with text among its tokens it has no other layout than this
    if transformer and not transformer.get("init_args", {}).get("words"):
        raise ConfigError(
            f"{folder}: this family is published as a pipeline: first python -m model export --format "
            f"diffusers --checkpoint {path} --out FOLDER, then push FOLDER with --run {path}"
        )
    _refuse_local_paths(config, folder / CONFIG)
    return {name: folder / name for name in (CONFIG, WEIGHTS, SUMS) if (folder / name).is_file()}


def _refuse_local_paths(value: Any, file: Path, where: str = "") -> None:
    """Raise ConfigError for a setting that names a place on this machine."""
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_local_paths(item, file, f"{where}.{name}" if where else name)
    elif isinstance(value, str) and Path(value).is_absolute():
        raise ConfigError(
            f"{file}: {where} {shown(value)} is a folder of this machine, which nobody else has"
        )


def push(
    repository: str, files: dict[str, Path], card: str, private: bool = False, message: str = "Upload model"
) -> str:
    """Send files and the card to the model hub in one commit; returns its address.

    The repository is made if it is not there. The token is the hub library's own: `hf auth login`, or the
    variable HF_TOKEN.

    Args:
        repository: `owner/name`.
        private: of a repository that is made; one that is public is refused then.

    Raises:
        ConfigError: the name is none, nobody is logged in, or the hub or the network refuses.
    """
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HFValidationError, HTTPError, LocalTokenNotFoundError
        from huggingface_hub.utils import validate_repo_id
    except ImportError as error:
        raise ConfigError("huggingface_hub is not installed: pip install '.[train]'") from error
    api = HfApi(library_name="editverse")
    try:
        validate_repo_id(repository)
        api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise ConfigError(f"{repository}: is there already and public; choose another name")
        adds = [CommitOperationAdd(name, path) for name, path in files.items()]
        adds.append(CommitOperationAdd(CARD, card.encode()))
        return str(api.create_commit(repository, adds, commit_message=message).commit_url)
    except EditVerseError:
        raise
    except (HTTPError, HFValidationError, LocalTokenNotFoundError, OSError, ValueError) as error:
        raise ConfigError(f"{repository}: the model hub took nothing: {first_line(error)}") from error


def check_repository(repository: str) -> None:
    """Raise ConfigError for what cannot be the name of a repository, without asking the hub."""
    owner, _, name = repository.partition("/")
    if not owner or not name or "/" in name or not all(c.isalnum() or c in "-_." for c in owner + name):
        raise ConfigError(f"--repo {shown(repository)}: owner/name, of letters, digits, '-', '_' and '.'")
