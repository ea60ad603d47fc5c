"""What embedding and editing need of any style-based generator, whatever its family: one small tuple of pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Tree = Any
Array = Any

FAMILIES = ("stylegan", "mobile_stylegan")
"""Modules below ``jaxgan.systems`` whose generators have styles."""


class StyleGenerator(NamedTuple):
    """A frozen style-based generator. ``arrays`` is an argument of every function, so that a compiled program holds none of it.

    N images, Z latent size, W code size, R resolution; codes are W+: one row of W numbers for each place where a style enters, first
    to last. All arrays are float32 and images are about [-1, 1], not clipped.
    """

    family: str
    digest: str
    """sha256 over configuration and arrays (``generators.digest``): which generator a code belongs to."""
    resolution: int
    latent_size: int
    w_size: int
    rows: int
    row_sides: tuple[int, ...]
    """For each row of a code, the side in pixels of the layer that it styles."""
    arrays: Tree
    map_latents: Callable[..., Array]
    """``map_latents(arrays, z [N, Z]) -> w [N, W]``; a third argument gives one-hot labels to a generator that has them."""
    w_avg: Callable[[Tree], Array]
    """``w_avg(arrays) -> [W]``: the mean of w."""
    noise: Callable[[Tree], dict[str, Array]]
    """``noise(arrays) -> {name: [side, side]}``: the stored noise."""
    noise_scale: Callable[[Tree], dict[str, Array]]
    """``noise_scale(arrays) -> {name: []}``: what noise of mean square 1 is multiplied by to be noise of this generator. 1 where the
    network has strengths of its own; else the root mean square of the stored map, which is noise times its strength."""
    synthesise: Callable[..., Array]
    """``synthesise(arrays, codes [N, rows, W], noise {name: [side, side] or [N, side, side]}) -> [N, R, R, 3]``; by keyword also
    ``start`` (name, activation), which begins behind that activation, and ``edits`` {name: f}, where f(activation) takes its place."""
    activation_names: tuple[str, ...]
    """Activations from which the image can be made, first to last."""
    activations: Callable[..., dict[str, Array]]
    """``activations(arrays, codes, noise, names) -> {name: [N, side, side, C]}``; nothing behind the last one is computed."""
    resume: Callable[..., Array]
    """``resume(arrays, (name, activation), codes, noise) -> [N, R, R, 3]``: the image from behind that activation."""

    def extend(self, w: Array) -> Array:
        """W to W+: [N, W] -> [N, rows, W], every row the same."""
        return w[:, None].repeat(self.rows, 1)


def open_style_generator(path: Any) -> StyleGenerator:
    """Reads a generator folder, or the newest intact checkpoint of a workdir (its averaged networks where there are any).

    Raises:
      FileNotFoundError: neither of the two is there. ValueError: it is damaged, or its family has no styles.
    """
    from jaxgan.generators import open_generator

    return style_generator(open_generator(path), path)


def style_generator(generator: Any, where: Any = "the generator") -> StyleGenerator:
    """As ``open_style_generator``, of a ``generators.Generator`` that was read before; ``where`` names it in errors."""
    from jaxgan.generators import digest, nested

    if generator.family not in FAMILIES:
        raise ValueError(f"{where} is of the family {generator.family}, which has no styles; those with styles: {', '.join(FAMILIES)}")
    params = {**nested(generator.arrays, "params"), **nested(generator.arrays, "ema")}
    model = nested(generator.arrays, "model")
    if "G" not in params or "G" not in model:
        raise ValueError(f"{where} holds no network G; its arrays are those of {', '.join(sorted({*params, *model})) or 'nothing'}")
    make = _mobile_stylegan if generator.family == "mobile_stylegan" else _stylegan
    return make(generator, params["G"], model["G"], digest(generator), where)


def of_stylegan(network: Any, params: Tree, state: Tree, digest: str = "") -> StyleGenerator:
    """A ``StyleGenerator`` of a StyleGAN: ``nets.stylegan.Generator``, {'mapping', 'synthesis'} and {'w_avg', 'noise'}.

    ``state`` may hold 'lod', the level of detail that growing has reached.

    Raises:
      ValueError: a network without styles (configurations A and B of the paper's table 1).
    """
    from jaxgan.nets import stylegan

    if not network.styles:
        raise ValueError("this StyleGAN was built without styles (styles false), so it has no codes of several rows")
    folded, folded_params = stylegan.freeze(network, params)
    # A run that still grows makes its images at the level of detail it has reached, doubled up to R.
    level, fade = stylegan.split_lod(float(state.get("lod", 0.0)))
    names = tuple(f"layer{i:02d}" for i in range(network.layers - 2 * level - (0 if fade is None else 2)))

    def synthesise(arrays: Tree, codes: Array, noise: Mapping[str, Array], *, start: Any = None, edits: Any = None) -> Array:
        if start is not None:
            if start[0] not in names:
                raise ValueError(f"no activation {start[0]!r} to go on from: this generator has {names[0]} to {names[-1]}")
            start = (names.index(start[0]), start[1])
        return stylegan.synthesise(folded, arrays["params"], codes, noise, level=level, fade=fade, start=start, edits=edits)

    return StyleGenerator(
        family="stylegan",
        digest=digest,
        resolution=network.resolution,
        latent_size=network.latent_size,
        w_size=network.w_size,
        rows=network.rows,
        row_sides=tuple(network.side(i) for i in range(network.layers)),
        arrays={"params": folded_params, "w_avg": state["w_avg"], "noise": dict(state.get("noise", {}))},
        map_latents=lambda arrays, z, labels=None: stylegan.map_latents(folded, arrays["params"], z, labels),
        w_avg=lambda arrays: arrays["w_avg"],
        noise=lambda arrays: arrays["noise"],
        noise_scale=lambda arrays: {name: np.float32(1) for name in arrays["noise"]},
        synthesise=synthesise,
        activation_names=names,
        activations=lambda arrays, codes, noise, names: stylegan.activations(folded, arrays["params"], codes, noise, names),
        resume=lambda arrays, start, codes, noise: synthesise(arrays, codes, noise, start=start),
    )


def of_mobile_stylegan(params: Tree, state: Tree, digest: str = "") -> StyleGenerator:
    """A ``StyleGenerator`` of a MobileStyleGAN: the trees of ``nets.mobile_stylegan``, and {'w_avg', 'noise'}."""
    from jaxgan.nets import mobile_stylegan

    names = mobile_stylegan.rows(mobile_stylegan.layers_of(params))

    def synthesise(arrays: Tree, codes: Array, noise: Mapping[str, Array], *, start: Any = None, edits: Any = None) -> Array:
        return mobile_stylegan.synthesise(arrays["params"], codes, noise, start=start, edits=edits)

    return StyleGenerator(
        family="mobile_stylegan",
        digest=digest,
        resolution=mobile_stylegan.resolution_of(params),
        latent_size=params["mapping"]["dense0"]["kernel"].shape[0],
        w_size=params["synthesis"]["conv1"]["modulation_kernel"].shape[0],
        rows=len(names),
        row_sides=tuple(
            mobile_stylegan.side_of(name) if name != "to_img" else mobile_stylegan.resolution_of(params) // 2 for name in names
        ),
        arrays={"params": params, "w_avg": state["w_avg"], "noise": dict(state["noise"])},
        map_latents=lambda arrays, z: mobile_stylegan.map_latents(arrays["params"], z),
        w_avg=lambda arrays: arrays["w_avg"],
        noise=lambda arrays: arrays["noise"],
        noise_scale=lambda arrays: {name: (array * array).mean() ** 0.5 for name, array in arrays["noise"].items()},
        synthesise=synthesise,
        activation_names=names,
        activations=lambda arrays, codes, noise, names: mobile_stylegan.activations(arrays["params"], codes, noise, names),
        resume=lambda arrays, start, codes, noise: synthesise(arrays, codes, noise, start=start),
    )


def _stylegan(generator: Any, params: Tree, state: Tree, digest: str, where: Any) -> StyleGenerator:
    import jax
    import jax.numpy as jnp

    from jaxgan.nets import stylegan

    network = generator.config.generator()
    _check(params, stylegan.layout(network), where)
    return of_stylegan(network, *jax.tree.map(jnp.asarray, (params, state)), digest)


def _mobile_stylegan(generator: Any, params: Tree, state: Tree, digest: str, where: Any) -> StyleGenerator:
    import jax
    import jax.numpy as jnp

    return of_mobile_stylegan(*jax.tree.map(jnp.asarray, (params, state)), digest)


def _check(params: Tree, layout: Tree, where: Any) -> None:
    """ValueError that names the first arrays that are not those of the configuration."""
    import jax

    def shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
        flat = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))
        return {"/".join(key.key for key in path): tuple(leaf.shape) for path, leaf in flat}

    wanted, there = shapes(layout), shapes(params)
    wrong = [
        f"{name} is {there.get(name, 'absent')}, it should be {wanted.get(name, 'absent')}"
        for name in sorted(wanted.keys() | there.keys())
        if wanted.get(name) != there.get(name)
    ]
    if wrong:
        raise ValueError(f"{where}: the arrays are not those of the configuration: {'; '.join(wrong[:5])}")


def renderer(generator: StyleGenerator, *, batch: int = 8, resolution: int | None = None) -> Callable[..., np.ndarray]:
    """``f(codes [n, rows, W], noise=None) -> uint8 [n, r, r, 3]``, computed ``batch`` images at a time by one compiled program.

    Args:
      resolution: side of the result, the mean over squares of pixels; None: the generator's own.

    ``noise`` holds [side, side] or [n, side, side]; None: the stored noise.

    Raises:
      ValueError: a resolution that does not divide the generator's; codes of another shape; images that are not finite.
    """
    import jax
    import jax.numpy as jnp

    from jaxgan.generators import quantise

    side = check_resolution(generator, resolution)
    share = generator.resolution // side

    @jax.jit
    def draw(arrays: Tree, codes: Array, noise: Mapping[str, Array]) -> Array:
        images = generator.synthesise(arrays, codes, noise)
        return images.reshape(-1, side, share, side, share, images.shape[-1]).mean((2, 4)) if share > 1 else images

    def render(codes: Any, noise: Mapping[str, Any] | None = None) -> np.ndarray:
        codes = np.asarray(codes, np.float32)
        if codes.ndim != 3 or codes.shape[1:] != (generator.rows, generator.w_size):
            raise ValueError(f"codes of shape {codes.shape}; this generator takes [n, {generator.rows}, {generator.w_size}]")
        maps = {name: jnp.asarray(array) for name, array in (generator.noise(generator.arrays) if noise is None else noise).items()}
        size, found = min(batch, len(codes)), []
        for first in range(0, len(codes), size):
            index = np.minimum(np.arange(first, first + size), len(codes) - 1)  # the last block is filled up: one compiled shape
            some = {name: array if array.ndim == 2 else array[index] for name, array in maps.items()}
            found.append(quantise(jax.device_get(draw(generator.arrays, jnp.asarray(codes[index]), some)))[: len(codes) - first])
        return np.concatenate(found) if found else np.zeros((0, side, side, 3), np.uint8)

    return render


def check_resolution(generator: StyleGenerator, resolution: int | None) -> int:
    """The side of the images to make; ValueError where it does not divide the generator's."""
    if resolution is None:
        return generator.resolution
    if resolution < 1 or generator.resolution % resolution:
        sides = [generator.resolution >> i for i in range(generator.resolution.bit_length() - 2)]
        raise ValueError(f"resolution {resolution} does not divide {generator.resolution}; give one of {', '.join(map(str, sides))}")
    return resolution
