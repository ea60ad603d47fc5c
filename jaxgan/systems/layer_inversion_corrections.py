"""The last stage of layer inversion: additive corrections of a generator's early layers, found for each photo by descent.

Bau, Zhu, Wulff, Peebles, Strobelt, Zhou and Torralba, *Seeing what a GAN cannot generate* (ICCV 2019). With the generator cut into
layers g_1, g_2, ... and a latent z0 that an encoder gives:

    r_1 = g_1(z0 + d_z) + d_1,   r_2 = g_2(r_1) + d_2,   ...,   x' = the remaining layers of the last r
    loss = mean |x - x'| + mean |V(x) - V(x')| + sum_i mean d_i^2

with V the maps of VGG-16 behind its second convolution of block 4, fed images in [-1, 1] as they are, and means over all numbers of one
photo. The corrections begin at 0, and the gradient reaches nothing else. Any generator that is a ``jaxgan.chains.Chain`` will do.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgan import invert
from jaxgan import perceptual as comparison
from jaxgan.arrays import arrays_checksum
from jaxgan.inversion_losses import cosine
from jaxgan.nets import vgg
from jaxgan.systems.layer_inversion_search import Perceptual, Problem

if TYPE_CHECKING:
    from jaxgan.chains import Chain

Tree = Any

LATENT = "z"
"""Name of the latent's own correction."""
TAP = "relu4_2"


@dataclasses.dataclass(frozen=True)
class Options:
    """The search. The defaults are the published code's.

    Raises:
      ValueError: a value out of range.
    """

    layers: tuple[str, ...] | None = None
    """Stages that get a correction, and 'z' for the latent; None: all before ``chain.target`` (ProGAN: layer1 to layer3)."""
    steps: int = 3000
    learning_rate: float = 0.01
    """Of Adam."""
    milestones: tuple[int, ...] | None = None
    """Steps after which the rate is multiplied by ``gamma``; None: 4, 6 and 9 fifteenths of all (800, 1,200 and 1,800 of 3,000)."""
    gamma: float = 0.5
    pixel_weight: float = 1.0
    perceptual_weight: float = 1.0
    correction_weight: float = 1.0
    """Of the sum of the corrections' mean squares."""
    perceptual_distance: str = "absolute"
    """'absolute', or 'squared' as in the authors' notebook."""
    tolerance: float = 0.0
    """Early stop, as in ``invert.Stop``; 0: none."""
    patience: int = 100

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.learning_rate > 0 or not 0 < self.gamma <= 1:
            raise ValueError(f"steps {self.steps}, learning_rate {self.learning_rate}, gamma {self.gamma}: from 1, above 0, in (0, 1]")
        check_weights(self, ("pixel_weight", "perceptual_weight", "correction_weight"))
        if self.perceptual_distance not in ("absolute", "squared"):
            raise ValueError(f"perceptual_distance {self.perceptual_distance!r} is not one of absolute, squared")
        if self.milestones is not None and list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones {self.milestones} must rise")


def check_weights(options: Any, names: tuple[str, ...]) -> None:
    """ValueError where a weight is below 0 or not finite, or where neither pixels nor maps count."""
    for name in names:
        if not (np.isfinite(getattr(options, name)) and getattr(options, name) >= 0):
            raise ValueError(f"{name} is {getattr(options, name)}: a number from 0 is needed")
    if not options.pixel_weight and not options.perceptual_weight:
        raise ValueError("pixel_weight and perceptual_weight are both 0: nothing compares the image with the photo")


def open_perceptual(
    side: int, tap: str = TAP, path: Any = None, *, normalisation: str = "signed", precision: str = "highest"
) -> Perceptual:
    """VGG-16's map `tap` (a file `path`, or the named weights 'vgg16') made ready for images of this side.

    ``normalisation``: a key of ``perceptual.NORMALISATIONS``; the published code feeds images in [-1, 1] as they are ('signed').

    Raises:
      FileNotFoundError, ValueError: the weights are absent or wrong; there is no such map.
    """
    from jaxgan import weights

    about = weights.about("vgg16", path)
    facts = {"vgg": about.get("sha256"), "tap": tap, "normalisation": normalisation}
    return of_vgg(vgg.params(weights.load("vgg16", path)), side, tap, normalisation=normalisation, precision=precision, about=facts)


def of_vgg(
    params: Tree, side: int, tap: str = TAP, *, normalisation: str = "signed", precision: str = "highest", about: Any = None
) -> Perceptual:
    """``Perceptual`` of ``vgg.params``; layers behind `tap` are left away."""
    if tap[4:] not in {name[4:] for name in params} or tap[:4] not in ("relu", "conv"):
        raise ValueError(f"tap {tap!r}: this VGG-16 has relu1_1 to relu{list(params)[-1][4:]}, and conv... before the ReLUs")
    names = list(params)
    needed = {name: params[name] for name in names[: names.index(f"conv{tap[4:]}") + 1]}

    def maps(arrays: Tree, images: jax.Array) -> jax.Array:
        return vgg.features(arrays, comparison.normalise(images, normalisation), (tap,), precision=precision)[tap]

    return Perceptual(vgg.freeze(needed, side), maps, about or {"tap": tap, "normalisation": normalisation})


def layers_of(chain: Chain, layers: tuple[str, ...] | None) -> tuple[str, ...]:
    """What is corrected, in order of depth, 'z' first.

    Raises:
      ValueError: a stage that this generator has not, one twice, none.
    """
    if layers is None:
        layers = chain.names[: chain.names.index(chain.target)] or (chain.target,)
    for name in layers:
        if name != LATENT and name not in chain.names[:-1]:
            raise ValueError(f"no layer {name!r} to correct: this {chain.family} generator has {LATENT}, {', '.join(chain.names[:-1])}")
    if not layers or len(set(layers)) != len(layers):
        raise ValueError(f"layers {layers}: each layer once, at least one")
    return tuple(sorted(layers, key=lambda name: -1 if name == LATENT else chain.names.index(name)))


def rates(options: Options) -> optax.Schedule:
    """The learning rate: ``learning_rate`` times ``gamma`` for each milestone reached."""
    marks = options.milestones
    if marks is None:
        marks = sorted({max(1, round(share * options.steps / 15)) for share in (4, 6, 9)})
    return optax.piecewise_constant_schedule(options.learning_rate, dict.fromkeys(marks, options.gamma))


def image_parts(
    options: Any, perceptual: Perceptual | None, frozen: Tree, images: jax.Array, targets: Tree
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Weighted sum [N] of the distances of pixels and maps, and the distances; 'error_pixels' is 100 times the mean square."""
    difference = images - targets["image"]
    parts = {"pixels": jnp.abs(difference).mean((1, 2, 3)), "error_pixels": 100 * jnp.square(difference).mean((1, 2, 3))}
    total = options.pixel_weight * parts["pixels"]
    if perceptual is not None and options.perceptual_weight:
        difference = perceptual.maps(frozen["perceptual"], images) - targets["maps"]
        each = jnp.square if options.perceptual_distance == "squared" else jnp.abs
        parts["perceptual"] = each(difference).mean((1, 2, 3))
        total = total + options.perceptual_weight * parts["perceptual"]
    return total, parts


def activation_parts(activation: jax.Array, targets: Tree) -> dict[str, jax.Array]:
    """What is recorded of the target activation: its mean square distance from the encoder's estimate, its error where it is known."""
    parts = {}
    if "estimate" in targets:
        parts["estimate"] = jnp.square(activation - targets["estimate"]).mean((1, 2, 3))
    if "activation" in targets:
        parts["error_activation"] = 100 * (1 - cosine(activation, targets["activation"])).mean((1, 2))
    return parts


def image_targets(options: Any, perceptual: Perceptual | None, frozen: Tree, images: jax.Array) -> dict[str, jax.Array]:
    """What ``image_parts`` needs of the photos."""
    targets = {"image": images}
    if perceptual is not None and options.perceptual_weight:
        targets["maps"] = perceptual.maps(frozen["perceptual"], images)
    return targets


def need_perceptual(options: Any, perceptual: Perceptual | None) -> None:
    """ValueError where maps have a weight, and there is no network that makes them."""
    if options.perceptual_weight and perceptual is None:
        raise ValueError("the loss compares maps of VGG-16, and there is none: open_perceptual, or perceptual_weight=0 for pixels alone")


def frozen_arrays(chain: Chain, perceptual: Perceptual | None, encoder: Any) -> dict[str, Tree]:
    """The networks' arrays by what they are for; {} for those that are not there."""
    networks = {"perceptual": perceptual, "encoder": encoder}
    return {"chain": chain.arrays, **{name: {} if network is None else network.arrays for name, network in networks.items()}}


def about_networks(perceptual: Perceptual | None, encoder: Any) -> dict[str, Any]:
    """Which networks a saved search belongs to."""
    about = {"perceptual": None if perceptual is None else dict(perceptual.about), "encoder": None}
    if encoder is not None:
        flat, _ = jax.tree_util.tree_flatten_with_path(encoder.arrays)
        about["encoder"] = arrays_checksum({jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat})
    return about


def prepare(chain: Chain, options: Options | None = None, *, perceptual: Perceptual | None = None, encoder: Any = None) -> Problem:
    """The search for corrections on one generator.

    Args:
      chain: from ``chains.open_chain``.
      options: the loss, the layers and the rates.
      perceptual: from ``open_perceptual``; needed unless its weight is 0.
      encoder: ``arrays`` and ``encode(arrays, images) -> {..., chain.target: activation}``, for the recorded 'estimate' alone; None: none.

    Raises:
      ValueError: a layer that is not there; a weight for maps without a network.
    """
    options = options or Options()
    options = dataclasses.replace(options, layers=layers_of(chain, options.layers))
    need_perceptual(options, perceptual)
    stages = tuple(name for name in options.layers if name != LATENT)
    corrects_latent = LATENT in options.layers
    # A search that leaves the latent alone begins each step behind the first corrected stage: what lies before it never changes.
    first, later = ("", stages) if corrects_latent else (stages[0], stages[1:])
    seen = first and chain.names.index(chain.target) <= chain.names.index(first)
    keep = later if seen else tuple(dict.fromkeys((*later, chain.target)))

    def run(variables: Tree, frozen: Tree, targets: Tree) -> tuple[jax.Array, jax.Array, Tree]:
        """Images, latents, and the activations behind their corrections."""
        edits = {name: functools.partial(jnp.add, variables[name]) for name in later}
        if corrects_latent:
            latents = targets["latents"] + variables[LATENT]
            images, kept = chain.run(frozen["chain"], latents, edits=edits, keep=keep)
            return images, latents, kept
        corrected = targets["start"] + variables[first]
        images, kept = chain.run(frozen["chain"], targets["latents"], start=(first, corrected), edits=edits, keep=keep)
        return images, targets["latents"], {first: corrected, **kept}

    def loss(variables: Tree, frozen: Tree, targets: Tree, step: jax.Array, keys: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        images, _, kept = run(variables, frozen, targets)
        total, parts = image_parts(options, perceptual, frozen, images, targets)
        for name in options.layers:
            part = jnp.square(variables[name]).mean(tuple(range(1, variables[name].ndim)))
            parts[f"correction_{name}"], total = part, total + options.correction_weight * part
        return total, parts | (activation_parts(kept[chain.target], targets) if chain.target in kept else {})

    @jax.jit
    def begin(frozen: Tree, images: jax.Array, latents: jax.Array, truth: Tree) -> tuple[Tree, Tree]:
        shapes = {name: latents.shape[1:] if name == LATENT else chain.shapes[name] for name in options.layers}
        variables = {name: jnp.zeros((len(images), *shape), latents.dtype) for name, shape in shapes.items()}
        targets = {"latents": latents, **image_targets(options, perceptual, frozen, images)}
        if first:
            targets["start"] = chain.run(frozen["chain"], latents, keep=(first,))[1][first]
        if encoder is not None:
            targets["estimate"] = encoder.encode(frozen["encoder"], images)[chain.target]
        if chain.target in truth:
            targets["activation"] = truth[chain.target]
        return variables, targets

    @jax.jit
    def show(variables: Tree, frozen: Tree, targets: Tree) -> tuple[jax.Array, jax.Array, Tree, Tree]:
        images, latents, kept = run(variables, frozen, targets)
        return images, latents, variables, kept

    frozen, about = frozen_arrays(chain, perceptual, encoder), about_networks(perceptual, encoder)
    return Problem("corrections", chain, options, loss, invert.adam(rates(options)), frozen, begin, show, about)
