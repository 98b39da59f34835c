"""The page of a model on the hub: README.md with a header in YAML, as the hub reads it.

What it says of a training comes from `model.training.run_card`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from model.config import ModelConfig
from model.inference.bases import bases
from model.inference.bundled import shipped
from model.net.wan_config import WanConfig

CARD = "README.md"
SHIPPED_LICENCE = "apache-2.0"  # of this repository and the weights that come with it
TAGS = ("editverse", "video-editing", "image-editing")


@dataclass(frozen=True)
class ModelCard:
    """What the page says.

    Attributes:
        license: of the weights, by the hub's name for it, e.g. apache-2.0; "unknown" where nobody has said.
        base: `owner/name` of the weights that training started from; None where they are not on the hub.
        adapter: the weights are an adapter to those of `base`.
        framework: `diffusers` for weights in its layout, else `editverse`.
        datasets: `owner/name` of data sets on the hub.
        summary: what the model is, in a sentence or two.
        sections: (heading, text in Markdown), in order.
    """

    license: str = "unknown"
    base: str | None = None
    adapter: bool = False
    framework: str = "editverse"
    datasets: tuple[str, ...] = ()
    summary: str = ""
    sections: tuple[tuple[str, str], ...] = field(default=())

    def render(self, repository: str) -> str:
        """The page, for `owner/name`."""
        import yaml

        header: dict[str, object] = {"license": self.license, "library_name": self.framework}
        if self.base:
            header["base_model"] = self.base
            header["base_model_relation"] = "adapter" if self.adapter else "finetune"
        if self.datasets:
            header["datasets"] = list(self.datasets)
        header |= {"pipeline_tag": "video-to-video", "tags": [*TAGS, *(["lora"] if self.adapter else [])]}
        start = yaml.safe_dump(header, sort_keys=False)
        parts = [("Use", self._usage(repository)), *self.sections]
        body = "".join(f"\n## {heading}\n\n{text.strip()}\n" for heading, text in parts)
        return f"---\n{start}---\n\n# {repository.partition('/')[2]}\n\n{self.summary}\n{body}"

    def _usage(self, repository: str) -> str:
        ours = f'editor = Editor.from_pretrained("{repository}")'
        theirs = f'pipe = WanPipeline.from_pretrained("{repository}")'
        if self.adapter:
            base = self.base or "BASE"
            ours = f'editor = Editor.from_pretrained("{base}", lora="{repository}")'
            theirs = f'pipe = WanPipeline.from_pretrained("{base}")\npipe.load_lora_weights("{repository}")'
        call = 'editor("<video1> Remove the dog.", video1="in.mp4").save("out.mp4")'
        text = f"With EditVerse:\n\n```python\nfrom model import Editor\n\n{ours}\n{call}\n```"
        if self.framework == "diffusers":
            text += f"\n\nWith diffusers:\n\n```python\nfrom diffusers import WanPipeline\n\n{theirs}\n```"
        return text


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown; what would end a cell is escaped."""

    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ") for c in cells) + " |\n"

    return line(header) + line("---" for _ in header) + "".join(line(row) for row in rows)


def licence_of_base(repository: str | None) -> str | None:
    """The hub's name of a known base's licence, e.g. apache-2.0; None for a base that is not known here."""
    if repository and shipped(Path(repository)) != Path(repository):
        return SHIPPED_LICENCE
    known = {base.repository: base.licence.lower() for base in bases()}
    return known.get(repository or "")


def card_of_model(config: ModelConfig) -> ModelCard:
    """A card that says what is known from a configuration alone."""
    network = config.network
    kind = "Wan's transformer" if isinstance(network, WanConfig) else "EditVerse's transformer"
    summary = (
        f"{kind} for in-context editing of images and videos: width {network.width}, depth {network.depth}, "
        f"{network.heads} heads."
    )
    framework = "diffusers" if isinstance(network, WanConfig) else "editverse"
    return replace(ModelCard(framework=framework), summary=summary)
