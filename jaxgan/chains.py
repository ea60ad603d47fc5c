"""A generator as a chain of named layers, whatever its family: what layer inversion, corrections and dissection need of it.

    chain = chains.open_chain("work/church")                          # a workdir, or a generator folder
    latents = chain.draw(chain.arrays, normal)                        # [N, Z] of N(0, 1) -> [N, *chain.latent]
    images, kept = chain.run(chain.arrays, latents, keep=(chain.target,))
    again, _ = chain.run(chain.arrays, latents, start=(chain.target, kept[chain.target]))
    changed, _ = chain.run(chain.arrays, latents, edits={chain.target: lambda r: r + correction})

Layers are those of Bau et al. (*Seeing what a GAN cannot generate*, ICCV 2019): r_i = g_i(r_(i-1)), r_0 the latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxgan.style_generators import StyleGenerator

Tree = Any
Array = Any
Edit = Callable[[Array], Array]

FAMILIES = ("progan", "stylegan", "mobile_stylegan", "coco_gan")
"""Modules below ``jaxgan.systems`` whose generators are chains."""
OUTPUT = "output"
"""Name of the last activation of every chain: the images."""


class Chain(NamedTuple):
    """A frozen generator. ``arrays`` is an argument of every function, so that a compiled program holds none of it.

    N images. Functions are pure and may be compiled; what their caller does not use is removed by the compiler. All arrays are float32
    and images are about [-1, 1]. Gradients reach latents, ``start`` and what edits add; the arrays have none.
    """

    family: str
    digest: str
    """sha256 over configuration and arrays (``generators.digest``): which generator latents and activations belong to."""
    image: tuple[int, int, int]
    """(H, W, C)."""
    names: tuple[str, ...]
    """Activations by depth; the last is ``OUTPUT``, the images themselves."""
    target: str
    """The activation r at which an inversion ends where nothing else is asked for: 8 pixels wide, or nearest to it."""
    shapes: dict[str, tuple[int, int, int]]
    """For each name (h, w, C) of the activation of one image."""
    latent: tuple[int, ...]
    """Shape of one image's latents: (Z,), or (rows, W), the extended code of a style-based generator."""
    arrays: Tree
    normal_size: int
    """Z of ``draw``."""
    draw: Callable[[Tree, Array], Array]
    """``draw(arrays, normal [N, Z] of N(0, 1)) -> latents [N, *latent]`` as the generator was trained with; nothing is truncated."""
    mean: Callable[[Tree], Array]
    """``mean(arrays) -> [*latent]``: the mean of the latents."""
    run: Callable[..., tuple[Array, dict[str, Array]]]
    """``run(arrays, latents, *, start=None, edits={}, keep=()) -> (images [N, H, W, C], {name: activation [N, h, w, C]})``.

    ``start`` (name, activation): begin behind that activation; the latents are then read by what lies behind it alone (None where
    nothing does: 'progan', and a start at the images). ``edits`` {name: f}: f(activation) takes the activation's place. ``keep``: names of
    activations to return, as they are after their edit, and so fit to start from.

    Raises ValueError for a layer that the chain lacks, an edit or a kept layer that lies before the start, an edit at the start,
    and for shapes that are not those of the layer.
    """


def open_chain(path: Any, *, corner: tuple[int, int] | None = None) -> Chain:
    """Reads a generator folder, or the newest intact checkpoint of a workdir (its averaged networks where there are any).

    Args:
      path: local or gs://.
      corner: COCO-GAN alone: the one micro patch at this (top, left) pixel, in the place of the whole image.

    Raises:
      FileNotFoundError: neither of the two is there. ValueError: it is damaged, or of a family that is no chain.
    """
    from jaxgan.generators import open_generator

    return chain(open_generator(path), path, corner=corner)


def chain(generator: Any, where: Any = "the generator", *, corner: tuple[int, int] | None = None) -> Chain:
    """As ``open_chain``, of a ``generators.Generator`` that was read before; ``where`` names it in errors."""
    from jaxgan.generators import digest, nested
    from jaxgan.style_generators import style_generator

    if generator.family not in FAMILIES:
        raise ValueError(f"{where} is of the family {generator.family}, which is no chain of layers; those that are: {', '.join(FAMILIES)}")
    if corner is not None and generator.family != "coco_gan":
        raise ValueError(f"{where} makes whole images: the corner {corner} of a micro patch belongs to the family coco_gan")
    if generator.family in ("stylegan", "mobile_stylegan"):
        return of_style(style_generator(generator, where))
    params = {**nested(generator.arrays, "params"), **nested(generator.arrays, "ema")}
    model = nested(generator.arrays, "model")
    if "G" not in params:
        raise ValueError(f"{where} holds no network G; its arrays are those of {', '.join(sorted({*params, *model})) or 'nothing'}")
    if generator.family == "coco_gan":
        return of_coco_gan(generator.config, params["G"], model.get("G", {}), digest(generator), corner=corner)
    state = model.get("G", {})
    return of_progan(generator.config.generator(), params["G"], state.get("stats", {}), digest(generator), lod=float(state.get("lod", 0.0)))


def of_progan(network: Any, params: Tree, stats: Tree, digest: str = "", *, lod: float = 0.0) -> Chain:
    """The chain of a progressive GAN: ``nets.progan.Generator`` and its trees. Latents are z [Z], and enter the first layer alone.

    ``lod``: the level of detail that growing has reached; images are doubled up to the generator's side.
    """
    import jax
    import jax.numpy as jnp

    from jaxgan.nets import progan
    from jaxgan.nets.stylegan import split_lod

    folded, arrays = progan.freeze(network, *jax.tree.map(jnp.asarray, (params, stats)))
    level, fade = split_lod(lod)

    def forward(arrays: Tree, latents: Array, start: Any, edits: Mapping[str, Edit]) -> Array:
        return progan.synthesise(folded, arrays, {}, latents, start=start, edits=edits, level=level, fade=fade)

    return _chain(
        family="progan",
        digest=digest,
        # a fading image is made of two activations: from the last two layers alone it cannot be made
        names=progan.names(network)[: network.layers - 2 * level - (0 if fade is None else 2)],
        latent=(network.latent_size,),
        arrays=arrays,
        normal_size=network.latent_size,
        draw=lambda arrays, normal: jnp.asarray(normal),
        mean=lambda arrays: jnp.zeros((network.latent_size,)),
        forward=forward,
        needs_latents=False,
    )


def of_style(generator: StyleGenerator) -> Chain:
    """The chain of a ``StyleGenerator``: latents are extended codes [rows, W], noise is the stored one."""

    def forward(arrays: Tree, latents: Array, start: Any, edits: Mapping[str, Edit]) -> Array:
        return generator.synthesise(arrays, latents, generator.noise(arrays), start=start, edits=edits)

    return _chain(
        family=generator.family,
        digest=generator.digest,
        names=generator.activation_names,
        latent=(generator.rows, generator.w_size),
        arrays=generator.arrays,
        normal_size=generator.latent_size,
        draw=lambda arrays, normal: generator.extend(generator.map_latents(arrays, normal)),
        mean=lambda arrays: generator.extend(generator.w_avg(arrays)[None])[0],
        forward=forward,
    )


def of_coco_gan(config: Any, params: Tree, model: Tree, digest: str = "", *, corner: tuple[int, int] | None = None) -> Chain:
    """The chain of COCO-GAN's generator: ``systems.coco_gan.Config``, params of G, and its {'spectral', 'stats'}.

    The generator makes micro patches. The activations of an image's patches lie side by side here as the patches do in the image, so that
    an activation is [N, rows * h, columns * w, C] and an edit sees all of it; all patches have the one latent. Normalised kernels are
    computed once. Everything is float32 (or float64), also for a generator trained in bfloat16.

    Args:
      corner: (top, left) pixel of the one micro patch that the chain makes, anywhere; None: the whole image.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxgan import coords
    from jaxgan.nets.coco_gan import layers
    from jaxgan.systems.coco_gan import Networks

    networks, geometry = Networks(config, dtype="float32"), config.geometry()
    corners = coords.full_grid(geometry) if corner is None else np.asarray([corner], np.int32)
    count = geometry.per_full if corner is None else (1, 1)
    patches = len(corners)
    params, model = jax.tree.map(jnp.asarray, (params, model))
    normalised = jax.jit(lambda params, model: networks.normalise("G", params, model)[0])(params, model)

    def assemble(activation: Array) -> Array:
        return coords.assemble(activation.reshape(-1, patches, *activation.shape[1:]), count)

    def split(activation: Array) -> Array:
        pieces = coords.split(activation, count)
        return pieces.reshape(-1, *pieces.shape[2:])

    def whole(edit: Edit) -> Edit:
        return lambda activation: split(edit(assemble(activation)))

    def forward(arrays: Tree, latents: Array, start: Any, edits: Mapping[str, Edit]) -> Array:
        at = jnp.tile(coords.coordinates(geometry, corners, config.micro).astype(latents.dtype), (latents.shape[0], 1))
        start = None if start is None else (start[0], split(start[1]))
        edits = {name: whole(edit) for name, edit in edits.items()}
        exact = Networks(config, dtype=latents.dtype).modules["G"]
        return assemble(exact.apply(arrays, jnp.repeat(latents, patches, 0), at, False, start, edits))

    def draw(arrays: Tree, normal: Array) -> Array:
        return jax.scipy.special.erf(jnp.asarray(normal) * math.sqrt(0.5))  # uniform in (-1, 1)

    return _chain(
        family="coco_gan",
        digest=digest,
        names=layers(config.micro, config.g_extra_blocks),
        latent=(config.latent,),
        arrays={"params": normalised, "stats": model["stats"]},
        normal_size=config.latent,
        draw=draw,
        mean=lambda arrays: jnp.zeros((config.latent,)),
        forward=forward,
        parts=count,
    )


def _chain(
    *,
    family: str,
    digest: str,
    names: Sequence[str],
    latent: tuple[int, ...],
    arrays: Tree,
    normal_size: int,
    draw: Callable[..., Array],
    mean: Callable[..., Array],
    forward: Callable[[Tree, Array, Any, Mapping[str, Edit]], Array],
    needs_latents: bool = True,
    parts: tuple[int, int] = (1, 1),
) -> Chain:
    """A ``Chain`` of ``forward(arrays, latents, start, edits) -> images``; ``parts``: pieces (down, across) that an image is made of."""
    import jax
    import jax.numpy as jnp

    names, shapes = (*names, OUTPUT), {}

    def run(
        arrays: Tree,
        latents: Array | None,
        *,
        start: tuple[str, Array] | None = None,
        edits: Mapping[str, Edit] | None = None,
        keep: Sequence[str] = (),
    ) -> tuple[Array, dict[str, Array]]:
        edits = edits or {}
        _check(names, start, edits, keep)
        kept: dict[str, Array] = {}
        if start is not None:
            name, activation = start[0], jnp.asarray(start[1])
            kept[name], start = activation, (name, activation)
            if activation.ndim != 4 or activation.shape[1:] != shapes[name]:
                raise ValueError(f"an activation of shape {activation.shape} to start from: {name} is [N, {_commas(shapes[name])}]")
        if latents is not None:
            latents = jnp.asarray(latents)
            if latents.shape[1:] != latent or latents.ndim != 1 + len(latent):
                raise ValueError(f"latents of shape {latents.shape}: this generator takes [N, {_commas(latent)}]")
            if start is not None and len(latents) != len(start[1]):
                raise ValueError(f"{len(latents)} latents for {len(start[1])} activations of {start[0]} to start from")
        elif start is None or (needs_latents and start[0] != OUTPUT):
            raise ValueError("no latents: they can be None only with a start behind which none enter")

        def watched(name: str) -> Edit:
            def watch(activation: Array) -> Array:
                kept[name] = edits[name](activation) if name in edits else activation
                if kept[name].shape != activation.shape:
                    raise ValueError(f"the edit of {name} gives {kept[name].shape}: it must keep the shape, {activation.shape}")
                return kept[name]

            return watch

        if start is not None and start[0] == OUTPUT:
            images = start[1]
        else:
            images = forward(arrays, latents, start, {name: watched(name) for name in names[:-1] if name in edits or name in keep})
            images = watched(OUTPUT)(images)
        return images, {name: kept[name] for name in keep}

    one = jax.ShapeDtypeStruct((1, *latent), jnp.float32)
    found = jax.eval_shape(lambda arrays, latents: run(arrays, latents, keep=names)[1], arrays, one)
    shapes.update({name: tuple(found[name].shape[1:]) for name in names})
    return Chain(
        family=family,
        digest=digest,
        image=shapes[OUTPUT],
        names=names,
        target=_target(names[:-1], shapes, parts),
        shapes=shapes,
        latent=latent,
        arrays=arrays,
        normal_size=normal_size,
        draw=draw,
        mean=mean,
        run=run,
    )


def _target(names: Sequence[str], shapes: Mapping[str, tuple[int, int, int]], parts: tuple[int, int]) -> str:
    """The last of the activations whose shorter side is nearest to 8 (by ratio), of one part."""

    def far(name: str) -> float:
        side = min(shapes[name][axis] // parts[axis] for axis in (0, 1))
        return abs(math.log2(side / 8))

    nearest = min(far(name) for name in names)
    return [name for name in names if far(name) == nearest][-1]


def check_names(chain: Chain, names: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple.

    Raises:
      ValueError: a layer that the chain lacks; names those that are there.
    """
    return _known(chain.names, names)


def _known(names: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    if unknown := [name for name in wanted if name not in names]:
        raise ValueError(f"no layer {unknown[0]!r}: this generator has {', '.join(names)}")
    return tuple(wanted)


def _check(names: Sequence[str], start: Any, edits: Mapping[str, Edit], keep: Sequence[str]) -> None:
    if isinstance(keep, str):
        raise ValueError(f"keep is {keep!r}: give a tuple of names")
    _known(names, [*edits, *keep, *([] if start is None else [start[0]])])
    if start is None:
        return
    first = names.index(start[0])
    for what, wanted, last in (("an edit of", edits, first), ("keep", keep, first - 1)):
        if before := [name for name in wanted if names.index(name) <= last]:
            raise ValueError(f"{what} {before[0]} with a start at {start[0]}: only what lies behind the start is computed")


def _commas(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
