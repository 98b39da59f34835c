"""Signals of models, with tiny random ones of the same architectures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curation.quality.grading import Grading
from curation.quality.pairs import Pair
from curation.quality.signals_clip import EmbeddingDuplicates, WordAgreement
from curation.quality.signals_models import People, Text, UnsafePictures
from curation.vlm.errors import AssetError
from tests.curation.reference.tiny_models import byte_tokenizer

pytestmark = pytest.mark.slow


def pair(same: bool = False) -> Pair:
    rng = np.random.default_rng(3)
    source, target = (rng.integers(0, 256, (3, 48, 64, 3), np.uint8) for _ in range(2))
    return Pair(source if same else target, source, None, 10.0, "object_removal", "Remove the dog.")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of random weights."""
    import torch
    import transformers as hf

    folder = tmp_path_factory.mktemp("clip")
    tokenizer = byte_tokenizer(("<|startoftext|>", "<|endoftext|>"))
    tokenizer.bos_token, tokenizer.eos_token = "<|startoftext|>", "<|endoftext|>"
    tokenizer.pad_token, tokenizer.model_max_length = "<|endoftext|>", 32
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(tokenizer), "max_position_embeddings": 32}
    text["eos_token_id"] = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    vision = {**small, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).save_pretrained(
        folder
    )
    size = {"height": 32, "width": 32}
    hf.CLIPProcessor(
        hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size), tokenizer
    ).save_pretrained(folder)
    return folder


def test_agreement_with_words_is_a_cosine_and_null_where_nothing_changed(clip: Path) -> None:
    grader = WordAgreement(str(clip), device="cpu")
    found = grader.measure(pair())
    assert set(found) == {signal.name for signal in grader.signals}
    assert all(value is not None and -1 <= value <= 1 for value in found.values())
    same = grader.measure(pair(same=True))
    assert same["word_direction"] is None
    assert same["picture_agreement"] == pytest.approx(1)
    other = Pair(pair().target, pair().source, None, 10.0, "object_removal", "Add a cat.")
    assert grader.measure(other)["word_agreement"] != found["word_agreement"]
    assert grader.describe().revision


def test_near_duplicates_are_told_by_what_a_model_sees(clip: Path) -> None:
    """The nearest earlier pair of the task; the same media under other words are none."""
    grader = EmbeddingDuplicates(str(clip), device="cpu")
    first = pair()
    y, x = np.mgrid[:48, :64]
    still = np.stack([np.stack([x * 4, y * 5, x + y], -1)] * 3).astype(np.uint8)
    other = Pair(still, still[:, ::-1].copy(), None, 10.0, "object_removal", "Remove the cat.")
    lighter = Pair(
        np.clip(first.target.astype(int) + 2, 0, 255).astype(np.uint8), first.source, None, 10.0, "", "Go."
    )
    reworded = Pair(first.target, first.source, None, 10.0, "object_removal", "Take the dog away.")
    marks = [grader.marks(one) for one in (first, other, lighter, reworded)]
    kinds = ["removal", "removal", "removal", "removal"]
    found = grader.compare([*marks, [], marks[0]], [*kinds, "removal", "style"])
    likeness, of = found["embedding_likeness"], found["embedding_duplicate_of"]
    assert np.isnan(likeness[[0, 4, 5]]).all()  # the first of their tasks, and one that was not looked at
    assert of[2] == 0
    assert likeness[2] > 0.99 > likeness[1]
    assert of[3] == 2  # not the first one, whose media it has


def test_unwanted_labels_are_named_by_the_user(tmp_path: Path) -> None:
    import torch
    import transformers as hf

    names = {"id2label": {0: "fine", 1: "nsfw", 2: "gore"}, "label2id": {"fine": 0, "nsfw": 1, "gore": 2}}
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    hf.ViTForImageClassification(hf.ViTConfig(**small, image_size=32, patch_size=8, **names)).save_pretrained(
        tmp_path
    )
    hf.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    one, all_of_them = (
        UnsafePictures(str(tmp_path), labels, "cpu").measure(pair())["unsafe"]
        for labels in (("nsfw",), ("fine", "nsfw", "gore"))
    )
    assert one is not None
    assert 0 < one < 1
    assert all_of_them == pytest.approx(1)
    with pytest.raises(AssetError, match="no label 'nudity'; there are: fine, gore, nsfw"):
        UnsafePictures(str(tmp_path), ("nudity",), "cpu").measure(pair())


def test_text_is_what_the_detector_marks(tmp_path: Path) -> None:
    """A detector whose probability is the picture's brightness: white places are text."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.full((1, 3, 1, 1), 4 / 3, np.float32), "weight")
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["brightness"], kernel_shape=[1, 1]),
        helper.make_node("Sigmoid", ["brightness"], ["probability"]),
    ]
    side = 96
    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [1, 1, side, side])],
        [weight],
    )
    path = tmp_path / "text.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    source = np.zeros((2, 96, 96, 3), np.uint8)
    target = source.copy()
    target[:, 30:46, 20:76] = 255
    found = Text(str(path), side).measure(Pair(target, source, None, 10.0))
    assert found["text_share"] == found["text_added"] == pytest.approx(16 * 56 / 96**2)
    assert Text(str(path), side).measure(Pair(source, target, None, 10.0))["text_share"] == 0
    (tmp_path / "damaged.onnx").write_bytes(path.read_bytes()[:-40])
    with pytest.raises(AssetError, match=r"damaged\.onnx: no text detector that OpenCV reads"):
        Text(str(tmp_path / "damaged.onnx"), side).measure(Pair(target))
    with pytest.raises(AssetError, match="no checkpoint of a text detector"):
        Text(str(tmp_path / "none.onnx")).describe()


def test_every_grader_of_the_file_with_models_is_there() -> None:
    """The file is read; no weights are looked for."""
    from curation.engine.task_config import build
    from curation.quality.grade import read_graders
    from shards.resources import config_root

    task = build(
        read_graders(config_root() / "curation" / "grade.models.yaml", "shards", ("judged_sharpness",))
    )
    assert isinstance(task, Grading)
    assert [grader.name for grader in task.graders] == ["judge"]
    whole = build(read_graders(config_root() / "curation" / "grade.models.yaml", "shards", ()))
    assert isinstance(whole, Grading)
    people = next(grader for grader in whole.graders if isinstance(grader, People))
    style = Pair(pair().target, pair().source, None, 10.0, "style_transfer")
    assert people.measure(style) == {"person_left": None, "person_there": None}
