"""The stages in which the encoders of layer inversion are trained: which encoders learn, from what loss, and on which schedule.

Bau et al., *Seeing what a GAN cannot generate* (ICCV 2019), section 3.2; schedules and options are those of the published code. Everything
is learned from what the generator itself makes of normal numbers; no photo is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxgan import inversion_losses, parallel
from jaxgan.chains import Chain
from jaxgan.inversion_losses import IMAGE as PIXELS
from jaxgan.nets import composed_encoder, image_encoder, layer_encoders
from jaxgan.nets.composed_encoder import IMAGE, LATENT, ComposedEncoder
from jaxgan.system import Tree

Loss = Callable[..., tuple[jax.Array, tuple[dict, dict]]]
"""As ``jaxgan.system.Player.loss``, of the network 'E' and with the generator's arrays as params['generator']."""

JOINT = "joint"


class Schedule(NamedTuple):
    """How a stage is trained where nothing else is asked for."""

    steps: int
    rate: float
    """Of Adam."""
    milestones: tuple[float, ...]
    """Shares of its steps after which the rate is multiplied by ``factor``."""
    factor: float


LAYER = Schedule(10_000, 1e-4, (0.2, 0.6), 0.1)
LATE_LAYER = LAYER._replace(milestones=(0.6, 0.8))
"""Of the second layer and of the fifteenth."""
OF_IMAGE = Schedule(10_000, 0.01, (), 1.0)
OF_JOINT = Schedule(100_000, 1e-5, (0.05, 0.15, 0.35), 0.5)
BOTTOM = Schedule(100_000, 1.5e-4, (0.5,), 0.2)


class Part(NamedTuple):
    """One stage."""

    name: str
    """'layer3', 'image', 'joint', 'bottom2'."""
    trained: tuple[str, ...]
    """The encoders that learn, by their names in ``ComposedEncoder``."""
    published: Schedule


def parts(names: Sequence[str], composed: ComposedEncoder) -> list[Part]:
    """The stages by name. Without names: one layer after the other from the first, the image encoder, and all of them together.

    Raises:
      ValueError: a stage that is not there or is named twice; names those that are.
    """
    layers = [name for name, _ in reversed(composed.layers)]
    everything = (IMAGE, *reversed(layers))
    known = {
        **{name: Part(name, (name,), LATE_LAYER if i in (2, 15) else LAYER) for i, name in enumerate(layers, 1)},
        IMAGE: Part(IMAGE, (IMAGE,), OF_IMAGE),
        JOINT: Part(JOINT, everything, OF_JOINT),
        **{f"bottom{i}": Part(f"bottom{i}", everything[-i:], BOTTOM) for i in range(1, len(layers) + 2)},
    }
    for name in names:
        if name not in known:
            raise ValueError(f"no stage {name!r}: the encoders of this generator are trained in {', '.join(known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"stages {', '.join(names)}: one is named twice")
    return [known[name] for name in names or (*layers, IMAGE, JOINT)]


def optimiser(rate: float, milestones: Sequence[int], factor: float, accumulates: bool | None) -> optax.GradientTransformation:
    """Adam (betas 0.9 and 0.999) whose rate is multiplied by ``factor`` after so many steps.

    ``accumulates``: True: of the running sum of all gradients so far, as the published loops have it, which never clear them. False: of
    the step's own, with a state of the same arrays; None: of the step's own, without the sum's array.
    """
    schedule = optax.piecewise_constant_schedule(rate, {step: factor for step in milestones})
    adam = optax.adam(schedule)
    return adam if accumulates is None else optax.chain(optax.trace(decay=1.0 if accumulates else 0.0), adam)


def loss(part: Part, chain: Chain, composed: ComposedEncoder, options: Any) -> Loss:
    """The loss of a stage. ``options``: a ``layer_inversion.Config``. Batch norms of the encoders that learn are in training mode."""
    if part.name == IMAGE:
        return _image_loss(chain, composed)
    if part.name == JOINT or part.name.startswith("bottom"):
        return _composed_loss(part, chain, composed, options)
    return _layer_loss(part.name, chain, composed, options)


def draw_latents(chain: Chain, arrays: Tree, key: jax.Array, count: int) -> jax.Array:
    """[count, *chain.latent] from the generator's own distribution, spread over the mesh."""
    normal = parallel.constrain(jax.random.normal(key, (count, chain.normal_size)), *parallel.AXES)
    return chain.draw(arrays, normal)


def _layer_loss(name: str, chain: Chain, composed: ComposedEncoder, options: Any) -> Loss:
    encoder, below = dict(composed.layers)[name], composed.names[composed.names.index(name) + 1]

    def loss(own: Tree, params: Tree, model: Tree, batch: Mapping[str, Any], key: jax.Array) -> tuple[jax.Array, tuple[dict, dict]]:
        arrays, stats = params["generator"], model["E"]["stats"]
        latents = draw_latents(chain, arrays, key, batch["sample"].shape[0])
        kept = chain.run(arrays, latents, keep=(name,) if below == LATENT else (below, name))[1] | {LATENT: latents}
        estimate, new = layer_encoders.apply(encoder, own["E"][name], stats[name], kept[name], train=True)
        again = generate(chain, arrays, latents, below, estimate, keep=(name,))[1][name]
        terms = inversion_losses.layer_terms(kept[below], estimate, kept[name], again, distance=options.distance)
        return inversion_losses.layer_loss(terms, options.regeneration_weight), (_moved(model, {name: new}), terms)

    return loss


def _image_loss(chain: Chain, composed: ComposedEncoder) -> Loss:
    target = composed.names[0]

    def loss(own: Tree, params: Tree, model: Tree, batch: Mapping[str, Any], key: jax.Array) -> tuple[jax.Array, tuple[dict, dict]]:
        arrays = params["generator"]
        images, kept = chain.run(arrays, draw_latents(chain, arrays, key, batch["sample"].shape[0]), keep=(target,))
        estimate, new = image_encoder.apply(composed.image, own["E"][IMAGE], model["E"]["stats"][IMAGE], images, train=True)
        return inversion_losses.image_loss(kept[target], estimate), (_moved(model, {IMAGE: new}), {})

    return loss


def _composed_loss(part: Part, chain: Chain, composed: ComposedEncoder, options: Any) -> Loss:
    layers = [name for name, _ in reversed(composed.layers)]
    estimate, recover, begin = options.estimate, options.recover, None
    if bottom := re.fullmatch(r"bottom(\d+)", part.name):
        depth = int(bottom[1])
        estimate, recover = (), inversion_losses.bottom_recover(depth, layers)
        begin = layers[depth - 1] if depth <= len(layers) else None
    elif estimate is None or recover is None:
        estimate = (composed.names[0],) if estimate is None else estimate
        recover = (LATENT, composed.names[0], PIXELS) if recover is None else recover
    places = [*layers, LATENT, PIXELS]
    for name in (*estimate, *recover):
        if name not in places or (name == PIXELS and name in estimate):
            raise ValueError(f"estimate {estimate}, recover {recover}: {name!r} is none of {', '.join(places)} (x can be recovered alone)")
    needed = [name for name in layers if name in (*estimate, *recover, begin)]

    def loss(own: Tree, params: Tree, model: Tree, batch: Mapping[str, Any], key: jax.Array) -> tuple[jax.Array, tuple[dict, dict]]:
        arrays, moving = params["generator"], own["E"]
        if part.name == JOINT:
            fixed = composed_encoder.joint_trainable(moving)
            moving = jax.tree.map(lambda array, moves: array if moves else lax.stop_gradient(array), moving, fixed)
        latents = draw_latents(chain, arrays, key, batch["sample"].shape[0])
        images, kept = chain.run(arrays, latents, keep=needed)
        seen = images if begin is None else kept[begin]
        found, new = composed_encoder.apply(composed, moving, model["E"]["stats"], seen, train=True, start=begin)
        images_again, again = chain.run(arrays, found[LATENT], keep=[name for name in layers if name in recover])
        terms = inversion_losses.joint_terms(
            {**kept, LATENT: latents, PIXELS: images}, found, {**again, PIXELS: images_again}, estimate=estimate, recover=recover
        )
        return jnp.stack(list(terms.values())).sum(), (_moved(model, new), terms)

    return loss


def _moved(model: Tree, stats: Mapping[str, Tree]) -> dict[str, Tree]:
    return {**model, "E": {**model["E"], "stats": {**model["E"]["stats"], **stats}}}


def generate(
    chain: Chain, arrays: Tree, latents: jax.Array, place: str, value: jax.Array, keep: Sequence[str] = ()
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """``chain.run`` from an estimate at ``place``: of the latents ("z"), or of an activation; ``latents`` enter behind it."""
    if place == LATENT:
        return chain.run(arrays, value, keep=keep)
    return chain.run(arrays, latents, start=(place, value), keep=keep)


def reconstruct(
    chain: Chain, composed: ComposedEncoder, arrays: Tree, params: Tree, stats: Tree, latents: jax.Array
) -> tuple[jax.Array, jax.Array, dict[str, tuple[jax.Array, jax.Array]]]:
    """(images, the same encoded and generated again, {place: (truth, estimate)}), with batch norms in evaluation mode.

    Encoders that are there work from the image down, or, where the image's is not there, from the activation that the first one takes.
    """
    layers = [name for name, _ in reversed(composed.layers)]
    images, kept = chain.run(arrays, latents, keep=layers)
    truth, found = {**kept, LATENT: latents}, {}
    place = next(name for name in (IMAGE, *composed.names) if name in params)
    if place == IMAGE:
        place = composed.names[0]
        value = found[place] = image_encoder.apply(composed.image, params[IMAGE], stats[IMAGE], images)[0]
    else:
        value = kept[place]
    for name, encoder in composed.layers[composed.names.index(place) :]:
        if name not in params:
            break
        place = composed.names[composed.names.index(name) + 1]
        value = found[place] = layer_encoders.apply(encoder, params[name], stats[name], value)[0]
    again, _ = generate(chain, arrays, latents, place, value)
    return images, again, {name: (truth[name], estimate) for name, estimate in found.items()}
