"""A set of tiny clips with known identity and pose, and swappers of known behaviour, for the tests of the swap measures.

A square of one of three hues with one of two marks, on black, at one of 5 x 5 places, lit from one side (heading). It is seen as the module
``jaxgan.systems.swap_toy``, whose swapper decodes by looking the truth up.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.swapping import Swapper

SIZE = 16
FACTORS = (("hue", 3), ("mark", 2))
HUES = np.array([[220, 40, 40], [40, 200, 60], [70, 80, 230]], np.uint8)


def render(identity: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    mask = np.zeros((SIZE, SIZE), bool)
    left, top = (round(float(value) * SIZE / 2) + SIZE // 2 - 4 for value in pose[:2])
    mask[top : top + 8, left : left + 8] = True
    image[mask] = HUES[int(identity[0])]
    if identity[1]:
        image[top : top + 2, left : left + 8] = 255
    light = np.cos(pose[2]), np.sin(pose[2])
    x, y = round(3 + 3 * float(light[0])), round(3 + 3 * float(light[1]))
    image[top + y : top + y + 2, left + x : left + x + 2] = 200
    return image, mask


class Clips:
    """Keeps the promises of ``jaxgan.data.clips.Clips``."""

    image = (SIZE, SIZE, 3)
    name, digest = "toys", "d" * 64
    factors, pose_names = FACTORS, ("x", "y", "heading")

    def __init__(self, n: int = 24, frames: int = 4, seed: int = 0, drawn: bool = True):
        rng = np.random.default_rng(seed)
        self.identity = np.stack([np.arange(n) % 3, np.arange(n) // 3 % 2], 1).astype(np.int32)
        place = rng.integers(-2, 3, (n, frames, 2)) / (SIZE / 2)
        self._poses = np.concatenate([place, rng.integers(0, 8, (n, frames, 1)) * np.pi / 4], -1).astype(np.float32)
        self.group = (self.identity @ [2, 1]).astype(np.int32)
        self._drawn = drawn
        both = [[render(self.identity[i], pose) for pose in self._poses[i]] for i in range(n)]
        self._frames = np.stack([[image for image, _ in row] for row in both])
        self._masks = np.stack([[mask for _, mask in row] for row in both])
        if not drawn:
            self.identity, self.factors, self.pose_names = None, (), ()

    def __len__(self) -> int:
        return len(self._frames)

    def length(self, i: int) -> int:
        return len(self._frames[i])

    def frame(self, i: int, t: int) -> np.ndarray:
        return self._frames[i, t]

    def frames(self, i: int) -> np.ndarray:
        return self._frames[i]

    def mask(self, i: int, t: int) -> np.ndarray | None:
        return self._masks[i, t] if self._drawn else None

    def pose(self, i: int) -> np.ndarray | None:
        return self._poses[i] if self._drawn else None

    def render(self, identity: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        return render(identity, pose) if self._drawn else None


def make(kind: str = "truth", clips: Clips | None = None) -> Swapper:
    """'truth': decodes by looking the truth up; 'identity', 'pose': copies that image; 'mean': always the mean of all frames.

    The codes hold the image; what probes read of them is the identity or the pose that the image shows, and nothing else ('leaky': the
    pose vector holds the identity too; 'faint': a hundredth of it, which the noise of drawn codes hides).
    """
    clips = clips or Clips()
    places = [(i, t) for i in range(len(clips)) for t in range(clips.length(i))]
    frames = jnp.asarray(np.stack([clips.frame(i, t) for i, t in places]) / np.float32(127.5) - 1, jnp.float32)
    who_is = jnp.asarray([int(clips.identity[i] @ [2, 1]) for i, _ in places])
    poses = np.stack([clips.pose(i)[t] for i, t in places])
    ways = jnp.asarray(np.stack([poses[:, 0], poses[:, 1], np.cos(poses[:, 2]), np.sin(poses[:, 2])], 1), jnp.float32)
    drawn = [[render((k // 2, k % 2), pose)[0] for pose in poses] for k in range(6)]
    truths = jnp.asarray(np.asarray(drawn) / np.float32(127.5) - 1, jnp.float32)
    middle = np.concatenate([clips.frames(i) for i in range(len(clips))]).mean(0) / 127.5 - 1

    def found(images: Any) -> Any:
        """The number of the frame that each image is."""
        return jax.lax.map(lambda image: jnp.abs(frames - image).sum((1, 2, 3)).argmin(), images)

    def encode(params: Any, images: Any) -> dict[str, Any]:
        return {"image": images}

    def decode(params: Any, identity: Any, pose: Any) -> Any:
        if kind in ("identity", "pose"):
            return {"identity": identity, "pose": pose}[kind]["image"]
        if kind == "mean":
            return jnp.broadcast_to(jnp.asarray(middle, jnp.float32), identity["image"].shape)
        return truths[who_is[found(identity["image"])], found(pose["image"])]

    def identity_vector(code: Any) -> Any:
        return jax.nn.one_hot(who_is[found(code["image"])], 6)

    def pose_vector(code: Any) -> Any:
        vector = ways[found(code["image"])]
        if kind in ("leaky", "faint"):
            vector = jnp.concatenate([vector, (1.0 if kind == "leaky" else 0.01) * identity_vector(code)], 1)
        return vector + code.get("noise", 0.0)

    def trace(params: Any, images: Any, reference: Any) -> dict[str, Any]:
        away = jnp.abs(images - reference).mean(-1)
        return {"score": 1 - away, "residual": away}

    def drawn(params: Any, images: Any, noise: Any) -> dict[str, Any]:
        return {"image": images, "noise": 0.2 * noise}

    return Swapper(SIZE, encode, encode, decode, identity_vector, pose_vector, trace, drawn if kind == "faint" else None)


@dataclasses.dataclass(frozen=True)
class Config:
    kind: str = "truth"


def swapper(config: Config) -> Swapper:
    return make(config.kind)


Config.__module__ = "jaxgan.systems.swap_toy"
sys.modules["jaxgan.systems.swap_toy"] = sys.modules[__name__]
