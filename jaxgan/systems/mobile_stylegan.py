"""MobileStyleGAN: a trained generator of faces to draw from, to embed into and to edit with. It is read, never trained here.

``State.params['G']`` = {'mapping', 'synthesis'} and ``State.model['G']`` = {'w_avg': [W], 'noise': {name: [side, side]}}, the trees of
``jaxgan.nets.mobile_stylegan``.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from jaxgan import parallel
from jaxgan.nets import mobile_stylegan as nets
from jaxgan.system import State, System


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices; the defaults are the published generator's, 1024 px."""

    widths: tuple[int, ...] = (512, 512, 512, 512, 512, 256, 128, 64)
    """Channels of the first convolution, at 4 px, and of each layer after it; multiples of 4."""
    latent_size: int = 512
    w_size: int = 512
    mapping_layers: int = 8
    psi: float = 0.5
    """Truncation of what is drawn: 1 none, 0 always the mean face."""

    def __post_init__(self):
        if not self.widths or any(width < 4 or width % 4 for width in self.widths):
            raise ValueError(f"widths {self.widths} must be one or more positive multiples of 4")
        if min(self.latent_size, self.w_size, self.mapping_layers) < 1:
            raise ValueError(f"latent_size {self.latent_size}, w_size {self.w_size}, mapping_layers {self.mapping_layers} must be positive")

    @property
    def resolution(self) -> int:
        """Side of the images: 4 px doubled by each layer, and once more by the last wavelets."""
        return 4 << len(self.widths)

    def layout(self) -> nets.Layout:
        return nets.Layout(self.widths, self.latent_size, self.w_size, self.mapping_layers)

    def system(self) -> System:
        return system(self)


def system(config: Config) -> System:
    """A ``System`` that draws; its ``step`` and ``prepare`` raise ValueError, for training is not offered."""

    def init(key: jax.Array) -> State:
        params, noise = nets.init(config.layout(), key)
        model = {"G": {"w_avg": jnp.zeros((config.w_size,)), "noise": noise}}
        return State(jnp.zeros((), jnp.int32), {"G": params}, {}, model, {}, {})

    return System(
        init=init,
        step=_refuse_training,
        sample=functools.partial(sample, config.psi),
        probes={},
        image=(config.resolution, config.resolution, 3),
        records=1,
        prepare=_refuse_training,
        owns={},
        check=_refuse_training,
    )


def sample(psi: float, state: State, key: jax.Array, n: int) -> jax.Array:
    """[n, R, R, 3] in about [-1, 1], from normal latents truncated towards the mean code, with the stored noise.

    As many images at a time as there are devices: one of 1024 px holds maps of 64 MB.
    """
    params, model = state.ema.get("G", state.params["G"]), state.model["G"]
    z = jax.random.normal(key, (n, params["mapping"]["dense0"]["kernel"].shape[0]))
    w = nets.truncate(nets.map_latents(params, z), model["w_avg"], psi)
    mesh = jax.sharding.get_abstract_mesh()
    together = 1 if mesh.empty else mesh.size
    together = together if n % together == 0 else 1

    def draw(w: jax.Array) -> jax.Array:
        return parallel.constrain(
            nets.synthesise(params, nets.extend(params, parallel.constrain(w, *parallel.AXES)), model["noise"]), *parallel.AXES
        )

    images = jax.lax.map(draw, w.reshape(n // together, together, -1))
    return images.reshape(n, *images.shape[2:])


def _refuse_training(*_: Any) -> NoReturn:
    raise ValueError("a MobileStyleGAN is not trained here: import its weights (`jaxgan weights import mobile-stylegan FILE --out FOLDER`)")
