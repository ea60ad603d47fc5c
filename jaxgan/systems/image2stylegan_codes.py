"""Where an embedding searches and where it begins: the spaces Z, W and W+, starting codes, and the random draws of each photo."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.style_generators import StyleGenerator
from jaxgan.systems.image2stylegan_options import Options

Tree = Any


def codes_of(generator: StyleGenerator, space: str, arrays: Tree, code: jax.Array) -> jax.Array:
    """Codes [N, rows, W] of what is optimised: z [N, Z], w [N, W] or w+ [N, rows, W]."""
    if space == "z":
        return generator.extend(generator.map_latents(arrays, code))
    return generator.extend(code) if space == "w" else code


def check_space(generator: StyleGenerator, space: str) -> None:
    """ValueError where the generator has no such space."""
    if space == "w+" and generator.rows < 2:
        raise ValueError(f"this {generator.family} generator has {generator.rows} row of codes, so W+ is W: use --space w")


def photo_keys(digests: Sequence[str], seed: int) -> jax.Array:
    """One key [N] for each photo, from its content and the seed alone: no photo's draws depend on its neighbours."""
    root = jax.random.key(seed)
    words = np.asarray([[int(digest[i : i + 8], 16) for i in (0, 8)] for digest in digests], np.uint32)
    return jax.vmap(lambda pair: jax.random.fold_in(jax.random.fold_in(root, pair[0]), pair[1]))(jnp.asarray(words))


def start_codes(generator: StyleGenerator, options: Options, keys: jax.Array, mean: jax.Array) -> jax.Array:
    """What a search begins with, [N, Z], [N, W] or [N, rows, W], for the starts that need no file.

    Args:
      keys: of the photos, [N].
      mean: of w, [W].
    """
    each = functools.partial(jax.vmap(jax.random.normal, in_axes=(0, None)), keys, (generator.latent_size,))
    shape = {"z": (generator.latent_size,), "w": (generator.w_size,), "w+": (generator.rows, generator.w_size)}[options.space]
    if options.start == "mean":
        return jnp.broadcast_to(mean, (len(keys), *shape))
    if options.start == "random":
        return jax.vmap(lambda key: jax.random.uniform(key, shape, minval=-1.0, maxval=1.0))(keys)
    if options.start != "z-random":
        raise ValueError(f"start {options.start!r} reads files: give the codes themselves as start")
    if options.space == "z":
        return each()
    w = jax.jit(generator.map_latents)(generator.arrays, each())
    return generator.extend(w) if options.space == "w+" else w


def given_codes(generator: StyleGenerator, options: Options, codes: np.ndarray) -> np.ndarray:
    """Codes [N, rows, W] that were found before, as a start in the space of ``options``.

    Raises:
      ValueError: the space is Z, or it is W and a code has rows that differ.
    """
    if codes.shape[1:] != (generator.rows, generator.w_size):
        raise ValueError(f"codes of shape {codes.shape}; this generator takes [N, {generator.rows}, {generator.w_size}]")
    if options.space == "z":
        raise ValueError("a start from codes is one in W or W+, and no z is known for it: use --space w+, or --start z-random")
    if options.space == "w+":
        return codes
    if not np.allclose(codes, codes[:, :1], atol=1e-5):
        raise ValueError("the codes to start from have rows that differ, which W does not hold: use --space w+")
    return codes[:, 0]


def start_of(generator: StyleGenerator, options: Options, keys: jax.Array, mean: jax.Array, start: Mapping[str, Any] | None) -> jax.Array:
    """What the search of `options` begins with: `start`'s codes where there are any, else as ``start_codes``."""
    if start is None:
        return start_codes(generator, options, keys, mean)
    return jnp.asarray(given_codes(generator, options, np.asarray(start["code"], np.float32)))


def start_noise(generator: StyleGenerator, keys: jax.Array, start: Mapping[str, Any] | None) -> dict[str, jax.Array]:
    """Noise maps in units of the generator's scale, {name: [N, side, side]}: those `start` brings along, else N(0, 1)."""
    if start and start.get("noise"):
        return unit_noise(start["noise"], generator.noise_scale(generator.arrays))
    return draw_noise(generator.noise(generator.arrays), keys)


def unit_noise(noise: Mapping[str, Any], scale: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Noise maps over ``StyleGenerator.noise_scale``; a map whose scale is 0 has no part in the image and stays as it is."""
    return {name: jnp.asarray(array, jnp.float32) / jnp.where(scale[name] > 0, scale[name], 1) for name, array in noise.items()}


def scaled_noise(noise: Mapping[str, jax.Array], scale: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The reverse of ``unit_noise``: maps as the generator takes them."""
    return {name: array * scale[name] for name, array in noise.items()}


def draw_noise(stored: Mapping[str, jax.Array], keys: jax.Array) -> dict[str, jax.Array]:
    """Noise maps N(0, 1) for every photo, {name: [N, side, side]}."""

    def draw(key: jax.Array) -> dict[str, jax.Array]:
        own = jax.random.fold_in(key, 1)  # the key itself is the start's
        each = jax.random.split(own, max(1, len(stored)))
        return {name: jax.random.normal(k, array.shape) for k, (name, array) in zip(each, stored.items(), strict=False)}

    return jax.vmap(draw)(keys)
