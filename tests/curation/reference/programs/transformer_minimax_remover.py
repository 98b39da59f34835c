"""Stands in for MiniMax-Remover's transformer: it has a folder of weights, and nothing else."""

import os


class Transformer3DModel:
    @classmethod
    def from_pretrained(cls, folder: str, torch_dtype: object = None) -> "Transformer3DModel":
        assert os.path.isfile(os.path.join(folder, "config.json")), folder  # noqa: PTH113, PTH118
        return cls()
