"""Names that classes and settings had before: those in files that people keep are understood for ever.

Configurations, checkpoints and run folders name classes by `class_path`; checkpoints and run folders hold all
settings of a model. This is the one place that knows old names. A setting or value that a person gives by its
old name is refused, with the new one (`shards.command`).
"""

from __future__ import annotations

from typing import Any

from shards.errors import SettingError

MOVED = {
    "benchmark.metrics.hit.EditHit": "benchmark.metrics.edit_success.EditHit",
    "benchmark.metrics.image_judge.PictureJudge": "benchmark.judges.image_judge.PictureJudge",
    "benchmark.metrics.judge.Judge": "benchmark.judges.judge.Judge",
    "benchmark.metrics.pictures.PictureJudge": "benchmark.judges.image_judge.PictureJudge",
    "curation.annotators.endpoint.Endpoint": "curation.vlm.endpoint.Endpoint",
    "curation.annotators.qwen2_vl.Qwen2Vl": "curation.vlm.qwen_vl.QwenVl",
    "curation.describing.Measured": "curation.text.heuristic_captions.HeuristicCaptioner",
    "curation.judging.Judge": "curation.text.vlm_filter.Judge",
    "curation.vlm.qwen2_vl.Qwen2Vl": "curation.vlm.qwen_vl.QwenVl",
    "curation.writing.Writer": "curation.text.vlm_captions.Writer",
}


# settings of a model and of a training run, by their place in it
SETTINGS = {
    "data.change_weight": "data.edit_weight",
    "data.encoded": "data.latent_cache",
    "data.flip": "data.flip_prob",
    "data.text_dropout": "data.text_drop_prob",
    "data.windows": "data.crops",
    "optim.average": "optim.loss_reduction",
    "train.keep": "train.max_checkpoints",
    "train.sample_every": "train.validate_every",
    "train.samples": "train.num_val_samples",
    "train.start": "train.init_from",
    "parallel.degree": "parallel.sequence_parallel",
    "model.codec": "model.vae",
    "model.text": "model.text_encoder",
    "flow.mean": "flow.logit_mean",
    "flow.std": "flow.logit_std",
    "flow.floor": "flow.min_remaining",
    "dit.copy_prior": "extras.copy_bias",
    "dit.place_prior": "extras.position_bias",
    "dit.place_heads": "extras.position_bias_heads",
    "inference.carry_over": "extras.detail_transfer",
    "inference.agree": "extras.blend_low",
    "inference.differ": "extras.blend_high",
}

# values of a setting, by its current name
VALUES = {
    "parallel.sharding": {"all": "full", "node": "hybrid", "none": "ddp"},
    "dit.context": {"causal": "cached"},
    "flow.prediction": {"clean": "x1"},
}

# commands of `python -m model`
COMMANDS = {"encode": "precompute", "ship": "export"}


# classes that are no more, and what is written instead
REMOVED = {
    "curation.annotators.propagated_style.PropagatedStyle": (
        "its three models are stages of the task now: let class_path of the task be "
        "curation.tasks.style_transfer.PropagatedStyleTransfer, with editor, generator and depth among its "
        "init_args (configs/curation/style_transfer.reference.yaml)"
    ),
}


def current(class_path: str) -> str:
    """The name that a class has now. Raises SettingError, with what to write, for one that is no more."""
    if class_path in REMOVED:
        raise SettingError(f"class_path: {class_path} is no more; {REMOVED[class_path]}")
    return MOVED.get(class_path, class_path)


def renewed(value: Any) -> Any:
    """A copy of JSON or YAML values in which every `class_path` and every setting has its current name."""
    if isinstance(value, dict):
        fresh: dict[str, Any] = {
            key: current(item) if key == "class_path" and isinstance(item, str) else renewed(item)
            for key, item in value.items()
        }
        for old, new in SETTINGS.items():
            (group, name), (new_group, new_name) = old.split("."), new.split(".")
            if isinstance(fresh.get(group), dict) and name in fresh[group]:
                moved = fresh[group].pop(name)
                fresh[new_group] = fresh.get(new_group, {}) | {new_name: moved}
        for setting, names in VALUES.items():
            group, name = setting.split(".")
            if isinstance(fresh.get(group), dict) and isinstance(old := fresh[group].get(name), str):
                fresh[group][name] = names.get(old, old)
        return fresh
    if isinstance(value, list):
        return [renewed(item) for item in value]
    return value
