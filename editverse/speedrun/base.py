"""The stage `base`: the weights that training starts from, on this machine and checked."""

from __future__ import annotations


def base(name: str) -> None:
    """Bring a base's weights to this machine, check them, and say what they are.

    Args:
        name: weights that come with the code, such as nano; a checkpoint's folder, or owner/name on the hub
    """
    from model.inference.bases import bases  # torch and more, which the runner itself needs not
    from model.inference.checkpoint import describe_checkpoint  # the same
    from model.inference.pretrained import find_checkpoint, weight_shapes  # the same

    config = describe_checkpoint(find_checkpoint(name))
    count = sum(shape.numel() for shape in weight_shapes(config.network, config.extras).values())
    licences = {base.repository: base.licence for base in bases()}
    licence = f", {licences[name]}" if name in licences else ""
    print(f"{count / 1e6:,.1f} M parameters{licence}")
