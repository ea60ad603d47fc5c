"""The baselines of layer inversion that search for the latent alone: from scratch, or from where an encoder begins.

    loss = mean |x - G(z)| + 0.25 mean (E(x) - E(G(z)))^2

with E the encoder's estimate of the latent (Bau et al., ICCV 2019, and its published code); without an encoder the images alone are
compared. Adam, or L-BFGS with a zoom line search; the published code's L-BFGS keeps ten pairs.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgan import invert
from jaxgan.systems.layer_inversion_corrections import (
    LATENT,
    about_networks,
    activation_parts,
    check_weights,
    frozen_arrays,
    image_parts,
    image_targets,
    need_perceptual,
)
from jaxgan.systems.layer_inversion_search import Perceptual, Problem

if TYPE_CHECKING:
    from jaxgan.chains import Chain

Tree = Any


@dataclasses.dataclass(frozen=True)
class Options:
    """The search.

    Raises:
      ValueError: a value out of range.
    """

    optimiser: str = "lbfgs"
    """'lbfgs' or 'adam'."""
    steps: int = 3000
    learning_rate: float = 0.1
    """Of Adam."""
    pixel_weight: float = 1.0
    perceptual_weight: float = 0.0
    encoder_weight: float = 0.25
    """Of the mean square difference of the encoder's estimates of the latent; not used without an encoder."""
    perceptual_distance: str = "absolute"
    """'absolute' or 'squared'."""
    trials: int = 10
    """Most evaluations of L-BFGS's line search in one step."""
    tolerance: float = 0.0
    """Early stop, as in ``invert.Stop``; 0: none."""
    patience: int = 100

    def __post_init__(self) -> None:
        if self.optimiser not in ("lbfgs", "adam") or self.perceptual_distance not in ("absolute", "squared"):
            raise ValueError(
                f"optimiser {self.optimiser!r}, perceptual_distance {self.perceptual_distance!r}: lbfgs or adam; absolute or squared"
            )
        if self.steps < 1 or self.trials < 1 or not (np.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"steps {self.steps}, trials {self.trials}, learning_rate {self.learning_rate}: from 1, from 1, above 0")
        check_weights(self, ("pixel_weight", "perceptual_weight", "encoder_weight"))


def prepare(chain: Chain, options: Options | None = None, *, perceptual: Perceptual | None = None, encoder: Any = None) -> Problem:
    """The search for latents of one generator.

    Args:
      chain: from ``chains.open_chain``.
      options: the loss and the optimiser.
      perceptual: needed where its weight is not 0.
      encoder: ``arrays`` and ``encode(arrays, images) -> {'z': latents, chain.target: activation, ...}``; None: images alone are compared.

    Raises:
      ValueError: a weight for maps without a network.
    """
    options = options or Options()
    need_perceptual(options, perceptual)

    def loss(variables: Tree, frozen: Tree, targets: Tree, step: jax.Array, keys: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        images, kept = chain.run(frozen["chain"], variables["latents"], keep=(chain.target,))
        total, parts = image_parts(options, perceptual, frozen, images, targets)
        if encoder is not None and options.encoder_weight:
            again = encoder.encode(frozen["encoder"], images)[LATENT]
            parts["encoder"] = jnp.square(again - targets["seen"]).mean(tuple(range(1, again.ndim)))
            total = total + options.encoder_weight * parts["encoder"]
        return total, parts | activation_parts(kept[chain.target], targets)

    @jax.jit
    def begin(frozen: Tree, images: jax.Array, latents: jax.Array, truth: Tree) -> tuple[Tree, Tree]:
        targets = image_targets(options, perceptual, frozen, images)
        if encoder is not None:
            found = encoder.encode(frozen["encoder"], images)
            targets |= {"estimate": found[chain.target], "seen": found[LATENT]}
        if chain.target in truth:
            targets["activation"] = truth[chain.target]
        return {"latents": latents}, targets

    @jax.jit
    def show(variables: Tree, frozen: Tree, targets: Tree) -> tuple[jax.Array, jax.Array, Tree, Tree]:
        images, kept = chain.run(frozen["chain"], variables["latents"], keep=(chain.target,))
        return images, variables["latents"], {}, kept

    if options.optimiser == "lbfgs":
        tx = optax.lbfgs(memory_size=10, linesearch=optax.scale_by_zoom_linesearch(options.trials))
    else:
        tx = invert.adam(options.learning_rate)
    frozen, about = frozen_arrays(chain, perceptual, encoder), about_networks(perceptual, encoder)
    return Problem("latents", chain, options, loss, tx, frozen, begin, show, about)
