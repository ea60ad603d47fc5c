"""The networks of robust disentangling and the terms of its losses, as pure functions; ``robust_disentangling`` makes the game of them.

Esser, Haux, Ommer (ICCV 2019, arXiv 1910.10223). Which network a term moves is decided here, by what its gradient is stopped at:

  term             D   E_pi   E_alpha   T   T_prime   A_pi   A_alpha
  reconstruction   x   x      x
  bottleneck           x
  constraint           x (through the pose code; the classifier's weights are held)
  T                                     x
  T_prime                                   x
  pose_picture                                        x
  identity_picture            x                              x

The identity picture moves E_alpha with ``maxinfo_alpha`` alone; a frozen E_alpha is moved by nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxgan import mutual_information as information
from jaxgan import perceptual
from jaxgan.nets import disentangling, vgg
from jaxgan.nets.density_ratio import DensityRatio
from jaxgan.nets.disentangling import Decoder, Encoder, Posterior
from jaxgan.system import Batch, Tree

DECAY = 0.99
"""Of the moving averages of the two estimates."""
MAPS = ("relu1_2", "relu2_2", "relu3_2", "relu4_2", "relu5_2")
PIXEL_DEVIATION = 255.0 * (0.229 + 0.224 + 0.225) / 3.0
"""What one unit of the input of torchvision's weights is on the scale from 0 to 255."""
CROP = 7 / 8
"""Side of the part of the images that VGG sees: 224 of 256 pixels, as published."""


@dataclasses.dataclass(frozen=True)
class Networks:
    """All networks of a ``robust_disentangling.Config``, as pure functions of the parameters by name."""

    config: Any

    @functools.cached_property
    def modules(self) -> dict[str, Any]:
        c = self.config
        modules = {
            "D": Decoder(c.widths, c.blocks),
            "E_pi": Encoder(disentangling.outputs(c.code, c.posterior), c.widths, c.blocks),
            "E_alpha": Encoder(c.code, c.widths, c.blocks),
            "T": DensityRatio(c.estimator),
            "T_prime": DensityRatio(c.estimator),
        }
        if c.auxiliary:
            modules |= {"A_pi": Decoder(c.widths, c.blocks), "A_alpha": Decoder(c.widths, c.blocks)}
        return modules

    def init(self, key: jax.Array) -> dict[str, Tree]:
        """Parameters by network name; each from a key of its own, so that a setting of one network leaves the others as they are."""
        images, code = jnp.zeros((1, self.config.side, self.config.side, 3)), jnp.zeros((1, self.config.code))
        given = {"E_pi": (images,), "E_alpha": (images,), "A_pi": (code,), "A_alpha": (code,)}
        return {
            name: module.init(jax.random.fold_in(key, number), *given.get(name, (code, code)))["params"]
            for number, (name, module) in enumerate(self.modules.items())
        }

    def apply(self, name: str, params: Tree, *inputs: jax.Array) -> jax.Array:
        return self.modules[name].apply({"params": params[name]}, *inputs)

    def pose(self, params: Tree, images: jax.Array) -> Posterior:
        """The distribution of the pose code of images [B, S, S, 3] in [-1, 1]."""
        return disentangling.posterior(self.apply("E_pi", params, images), self.config.code, self.config.posterior)


def terms(networks: Networks, params: Tree, frozen: Tree, model: Tree, batch: Batch, key: jax.Array) -> tuple[dict, dict]:
    """All terms of the losses at the same parameters, and what is read of the codes on the way.

    Args:
      params: parameters of all networks by name.
      frozen: {'vgg': ...} for ``perceptual`` 'vgg', else {}.
      model: {'T': {'multiplier', 'average', 'updates'}, 'T_prime': {'gamma', 'average'}}.
      batch: 'image' uint8 [B, 2, S, S, 3], two images of the same identity, and 'group' int32 [B], whose; B at least 2.
      key: for the noise of the pose codes, the roll of the identity codes and the crop that VGG sees.

    Returns:
      ({term: scalar}, {'kl', 'error', 'information', 'information_prime', 'accuracy', 'accuracy_prime'}). Means over the batch;
      information and KL in nats. 'error' is the mean squared error on [-1, 1].
    """
    c, hold = networks.config, lax.stop_gradient
    images = to_float(batch["image"])
    first, second = images[:, 0], images[:, 1]
    given = networks.pose(params, first)
    alpha = networks.apply("E_alpha", params, second)
    if c.e_alpha == "frozen":
        alpha = hold(alpha)
    if c.deterministic:
        pi = judged = given.mean
    else:  # one noise for the decoder, one that both classifiers share
        noise = jax.random.normal(jax.random.fold_in(key, 0), (2, *given.mean.shape))
        pi, judged = (disentangling.draw(given, part) for part in noise)
    other, counted = strangers(hold(alpha), batch["group"], jax.random.fold_in(key, 1))

    picture = networks.apply("D", params, pi, alpha)
    if c.perceptual == "vgg":
        reconstruction = perceptual_error(c, frozen["vgg"], picture, first, jax.random.fold_in(key, 2))
    else:
        reconstruction = pixel_error(picture, first)
    if given.factor is None:
        kl = information.kl_diagonal(given.mean, given.logvar).mean()
    else:
        kl = information.kl_full(given.mean, given.factor).mean()

    found = {"reconstruction": reconstruction}
    read = {"kl": hold(kl), "error": hold(jnp.square(picture - first).mean())}
    if not c.deterministic:
        found["bottleneck"] = model["T_prime"]["gamma"] * kl
    for name, suffix in (("T", ""), ("T_prime", "_prime")):
        joint = networks.apply(name, params, hold(judged), hold(alpha))
        marginal = networks.apply(name, params, hold(judged), other)
        found[name] = information.density_ratio_loss(joint, marginal, counted)
        read[f"information{suffix}"] = hold(information.estimate(joint))
        read[f"accuracy{suffix}"] = information.accuracy(joint, marginal, counted)
    if c.constraint:
        warm = (model["T"]["updates"] >= c.warmup).astype(jnp.float32)
        costs = []
        for name in ("T", "T_prime") if c.leak else ("T",):
            logits = networks.apply(name, hold(params), judged, hold(alpha))
            costs.append(information.lagrangian(information.estimate(logits), c.epsilon, c.mu, model["T"]["multiplier"])[0])
        found["constraint"] = warm * sum(costs)
    if c.auxiliary:
        found["pose_picture"] = 0.5 * pixel_error(networks.apply("A_pi", params, hold(pi)), first)
        seen, target = (alpha, first) if c.maxinfo_alpha else (hold(alpha), second)
        found["identity_picture"] = 0.5 * pixel_error(networks.apply("A_alpha", params, seen), target)
    return found, read


def advance(config: Any, model: Tree, read: dict[str, jax.Array]) -> tuple[dict[str, Any], dict[str, jax.Array]]:
    """What evolves beside the parameters, after a step: (the new entries 'T' and 'T_prime' of ``model``, readings for the log).

    The averages follow the estimates in every step; multiplier and gamma move behind the warm-up alone.
    """
    before, free = model["T"], model["T_prime"]
    updates = before["updates"] + 1
    averages = [
        information.moving_average(entry["average"], read[name], DECAY)
        for entry, name in ((before, "information"), (free, "information_prime"))
    ]
    smooth = [information.corrected(average, DECAY, updates) for average in averages]
    overpowered = information.overpowering(*smooth)
    multiplier, gamma, warm = before["multiplier"], free["gamma"], before["updates"] >= config.warmup
    if config.constraint:
        moved = information.lagrangian(read["information"], config.epsilon, config.mu, multiplier)[1]
        multiplier = jnp.where(warm, moved, multiplier)
    if config.bottleneck == "adaptive" and not config.deterministic:
        gamma = jnp.where(warm, information.bottleneck(gamma, overpowered), gamma)
    log = {"average": smooth[0], "average_prime": smooth[1], "overpowering": overpowered, "multiplier": multiplier, "gamma": gamma}
    new = {
        "T": {"multiplier": multiplier, "average": averages[0], "updates": updates},
        "T_prime": {"gamma": gamma, "average": averages[1]},
    }
    return new, log


def strangers(alpha: jax.Array, group: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Identity codes [B, e] rolled by a random number of samples, never 0, and which of them [B] are of another group than the sample.

    Chosen here; the published code reverses the batch, which pairs the middle sample of an odd batch with itself.
    """
    shift = jax.random.randint(key, (), 1, alpha.shape[0])
    return jnp.roll(alpha, shift, 0), group != jnp.roll(group, shift, 0)


def to_float(images: jax.Array) -> jax.Array:
    """uint8 as float32 in [-1, 1]; floats as they are."""
    return images.astype(jnp.float32) / 127.5 - 1.0 if images.dtype == jnp.uint8 else images


def pixel_error(images: jax.Array, targets: jax.Array) -> jax.Array:
    """Squared error on [-1, 1], summed over an image and averaged over the batch: the likelihood of the published Sprites model."""
    return jnp.square(images - targets).sum((1, 2, 3)).mean()


def perceptual_error(config: Any, network: Tree, images: jax.Array, targets: jax.Array, key: jax.Array) -> jax.Array:
    """The likelihood of the published DeepFashion model: 0.5e-3 * (numbers in an image) * sum over maps of mean |difference|.

    The maps are the pixels, on the scale from 0 to 255, and VGG's relu1_2 to relu5_2, of the same random part of both images. Chosen
    here: VGG-16 in the place of VGG-19, whose first two convolutions of a block are of the same kind; images are seen at their own size
    unless ``vgg_size`` is set (published: 256); and maps of torchvision's weights, whose input is scaled by the pixels' deviation, are
    multiplied by it, so that they stand to the pixels as those of the published weights do.
    """
    numbers = images.shape[1] * images.shape[2] * images.shape[3]
    both = jnp.concatenate([images, lax.stop_gradient(targets)])
    if config.vgg_size:
        both = perceptual.resize(both, config.vgg_size, "bilinear")
    whole = both.shape[1]
    part = int(whole * CROP)
    top, left = jax.random.randint(key, (2,), 0, whole - part + 1)
    zero = jnp.zeros_like(top)
    both = lax.dynamic_slice(both, (zero, top, left, zero), (both.shape[0], part, part, both.shape[3]))
    maps = vgg.features(network, perceptual.normalise(both, config.vgg_input), MAPS)
    scale = PIXEL_DEVIATION if config.vgg_input == "torchvision" else 1.0
    halves = [127.5 * both, *(scale * found for found in maps.values())]
    total = sum(jnp.abs(x[: len(images)] - x[len(images) :]).mean() for x in halves)
    return 0.5e-3 * numbers * total
