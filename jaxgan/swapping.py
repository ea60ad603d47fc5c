"""Two codes of an image, one of who it is and one of how it stands: what swapping and its measures need of a system that learns them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

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
