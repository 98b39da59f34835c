"""LPIPS by hand from its definition, on an AlexNet with random weights and the published heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics
from torch.nn import functional as F
from torchvision.models import alexnet

from benchmark.core.item import BenchmarkError, Geometry, Loaded, Reference, Unscored
from benchmark.metrics.base import score
from benchmark.metrics.perceptual import Lpips, Perceptual
from tests.benchmark import synthetic

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return alexnet(weights=None).features.eval()


def test_lpips(network: torch.nn.Module, tmp_path: Path) -> None:
    """Unit channels after each ReLU, squared differences weighted by the heads, mean over places."""
    file = tmp_path / "alexnet.pth"
    torch.save({f"features.{name}": value for name, value in network.state_dict().items()}, file)
    published = Path(torchmetrics.__file__).parent / "functional/image/lpips_models/alex.pth"
    heads = torch.load(published, map_location="cpu", weights_only=True)
    source, target = synthetic.drawn(1, 3, 64, 80), synthetic.drawn(1, 3, 64, 80, tint=1.0)
    reference = Reference(Loaded(source, target, None, 8, {}), Geometry(3, 64, 80, 8))
    wanted = []
    for pair in zip(source, target, strict=True):
        x = torch.stack([torch.from_numpy(p).movedim(-1, 0).float() / 127.5 - 1 for p in pair])
        x = (x - torch.tensor(SHIFT)[:, None, None]) / torch.tensor(SCALE)[:, None, None]
        total = 0.0
        for number, layer in enumerate(network):
            with torch.no_grad():
                x = layer(x) if not isinstance(layer, torch.nn.ReLU) else F.relu(x)
            if isinstance(layer, torch.nn.ReLU):
                level = (1, 4, 7, 9, 11).index(number)
                unit = x / x.square().sum(1, keepdim=True).sqrt().clamp(min=1e-8)
                apart = (unit[0] - unit[1]).square()
                total += float((apart * heads[f"lin{level}.model.1.weight"][0]).sum(0).mean())
        wanted.append(total)
    metric = Lpips(Perceptual(str(file)))
    assert score(metric, reference, source) == pytest.approx(np.mean(wanted), abs=1e-5)
    assert np.mean(wanted) > 1e-4
    assert score(metric, reference, target) == pytest.approx(0, abs=1e-7)
    assert isinstance(score(metric, reference, source[:, :20, :20]), Unscored)
    without = Reference(Loaded(source, None, None, 8, {}), Geometry(3, 64, 80, 8))
    assert score(metric, without, source) == Unscored("the item has no target to compare with")
    torch.save({"features.0.weight": torch.zeros(1)}, file)
    with pytest.raises(BenchmarkError, match="no AlexNet"):
        score(Lpips(Perceptual(str(file))), reference, source)
