"""Two codes of an image, one of who it is and one of how it stands: what swapping and its measures need of a system that learns them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Tree = Any


class Swapper(NamedTuple):
    """A system's two encoders and its decoder as pure functions; a code is a pytree whose leaves have the image as first axis.

    ``params``: the networks' parameters by name, averaged ones where there are any. Images are float32 [N, S, S, 3] in [-1, 1].
    """

    size: int
    """S, the side of the images in pixels."""
    identity: Callable[[Tree, jax.Array], Tree]
    """``identity(params, images) -> code``: of whom an image shows; without noise."""
    pose: Callable[[Tree, jax.Array], Tree]
    """``pose(params, images) -> code``: of how it stands; without noise."""
    decode: Callable[[Tree, Tree, Tree], jax.Array]
    """``decode(params, identity, pose) -> images``."""
    identity_vector: Callable[[Tree], jax.Array]
    """The part of an identity code that probes read: code -> [N, d]."""
    pose_vector: Callable[[Tree], jax.Array]
    """The same of a pose code."""
    trace: Callable[[Tree, jax.Array, jax.Array], dict[str, jax.Array]] | None = None
    """``trace(params, images, reference) -> {'score', 'residual'}``, each [N, h, w]: how far every pixel can be traced back to the
    reference. None: the system has no such module."""
    drawn: Callable[[Tree, jax.Array, jax.Array], Tree] | None = None
    """``drawn(params, images, noise [N, d]) -> code``: the pose code as the decoder gets it in training, for standard normal noise as long
    as ``pose_vector``. None: a pose code is a function of the image."""


def open_swapper(path: Any) -> tuple[Swapper, Tree, dict[str, Any]]:
    """The swapper of a run or a generator folder, its networks (averaged ones where there are any), and what a protocol says of them.

    Returns:
      (swapper, params by network name, {'run', 'family', 'step', 'networks'}); 'networks' is the sha256 of configuration and arrays.

    Raises:
      FileNotFoundError: neither is there. ValueError: a family that learns no two codes.
    """
    import importlib

    from jaxgan.generators import digest, nested, open_generator

    generator = open_generator(path)
    module = importlib.import_module(f"jaxgan.systems.{generator.family}")
    if not hasattr(module, "swapper"):
        families = "identity_pose and robust_disentangling"
        raise ValueError(f"{path} is a run of the family {generator.family}, which has no codes of identity and pose; {families} have")
    params = jax.tree.map(jnp.asarray, {**nested(generator.arrays, "params"), **nested(generator.arrays, "ema")})
    facts = {"run": str(path), "family": generator.family, "step": generator.step, "networks": digest(generator)}
    return module.swapper(generator.config), params, facts
