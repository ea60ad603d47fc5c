"""Published encoders of layer inversion, from their PyTorch state dict, for a progressive generator of the same sizes.

A state dict does not say for which generator it was trained: sizes are checked, the rest is the user's word.
"""

from __future__ import annotations

from pathlib import Path

from jaxgan.chains import Chain
from jaxgan.nets.composed_encoder import ComposedEncoder
from jaxgan.systems.layer_inversion import Config, Encoder, as_encoder
from jaxgan.weights.inversion_encoder_files import read_encoder


def open_file(path: str | Path, chain: Chain) -> Encoder:
    """The composition of e_f and e_4 to e_1 in a file (PyTorch, safetensors or npz) as the encoder of this generator.

    Raises:
      ValueError: another file or a damaged one, a generator of another family, or of other sizes. FileNotFoundError: no such file.
    """
    height, width, _ = chain.image
    if chain.family != "progan" or height != width:
        raise ValueError(f"{path}: state dicts of encoders are read for progressive GANs (progan), not for {chain.family}")
    found = read_encoder(path, side=height, target_side=chain.shapes[chain.target][0])
    composed = found.description
    if not isinstance(composed, ComposedEncoder):
        raise ValueError(f"{path} holds an image encoder alone, not the composition of all (resnet, inv4, inv3, inv2, inv1)")
    expected = Config("file", widths=composed.image.widths).composed(chain)
    if composed != expected:
        raise ValueError(f"{path} is for a generator of other sizes: it encodes {_sizes(composed)}; this one needs {_sizes(expected)}")

    return as_encoder(composed, chain, {"params": found.params, "stats": found.stats}, 0)


def _sizes(composed: ComposedEncoder) -> str:
    """'image -> 512, layer4 512 -> 512, ...': channels."""
    return ", ".join([f"image -> {composed.image.outputs}", *(f"{name} {part.inputs} -> {part.outputs}" for name, part in composed.layers)])
