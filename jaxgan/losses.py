"""Losses and penalties, each a short pure function with its equation and source."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def wasserstein_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
    """-mean D(real) + mean D(fake): the critic's side of the Wasserstein distance (Arjovsky et al., ICML 2017)."""
    return fake.mean() - real.mean()


def wasserstein_generator(fake: jax.Array) -> jax.Array:
    """-mean D(fake) (Arjovsky et al., ICML 2017)."""
    return -fake.mean()


def logistic_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
    """mean softplus(D(fake)) + mean softplus(-D(real)): cross-entropy on logits (Goodfellow et al., NeurIPS 2014, equation 1)."""
    return jax.nn.softplus(fake).mean() + jax.nn.softplus(-real).mean()


def nonsaturating_generator(fake: jax.Array) -> jax.Array:
    """mean softplus(-D(fake)) (Goodfellow et al., NeurIPS 2014, section 3)."""
    return jax.nn.softplus(-fake).mean()


def saturating_generator(fake: jax.Array) -> jax.Array:
    """-mean softplus(D(fake)): the generator's side of the same game, with small gradients where D is sure (equation 1, as above)."""
    return -jax.nn.softplus(fake).mean()


def hinge_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
    """mean max(0, 1 - D(real)) + mean max(0, 1 + D(fake)) (Lim and Ye, 2017); the generator's side is ``wasserstein_generator``."""
    return jax.nn.relu(1.0 - real).mean() + jax.nn.relu(1.0 + fake).mean()


def squared_slopes(critic: Callable[[jax.Array], jax.Array], images: jax.Array) -> jax.Array:
    """Sum of squares of d sum D(x) / dx for each image [B, H, W, C] -> [B].

    gamma / 2 times its mean is R1 on real images, R2 on fakes (Mescheder et al., ICML 2018, section 4.1).
    """
    gradient = jax.grad(lambda x: critic(x).sum())(images)
    return jnp.square(gradient).sum((1, 2, 3))


def drift(real: jax.Array) -> jax.Array:
    """mean D(real)^2, which keeps a Wasserstein critic's scores near 0; weight 0.001 (Karras et al., ICLR 2018, appendix A.1)."""
    return jnp.square(real).mean()


def safe_norm(x: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    """Euclidean norm whose gradient at 0 is 0 instead of NaN; the same value everywhere."""
    square = jnp.sum(x * x, axis)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def gradient_slopes(critic: Callable[[jax.Array], jax.Array], images: jax.Array, mode: str = "reference") -> jax.Array:
    """Norms of the gradient of ``critic`` (images -> logits) with respect to its images [B, H, W, C].

    ``mode``: 'textbook' takes the norm over all values of an image -> [B] (Gulrajani et al., NeurIPS 2017, equation 3);
    'reference' takes it over the height only -> [B, W, C], which is what COCO-GAN's published code computes.

    Raises:
      ValueError: another mode.
    """
    gradient = jax.grad(lambda x: critic(x).sum())(images)
    if mode == "textbook":
        return safe_norm(gradient, (1, 2, 3))
    if mode == "reference":
        return safe_norm(gradient, 1)
    raise ValueError(f"gradient penalty mode {mode!r}: expected 'reference' or 'textbook'")


def gradient_penalty(slopes: jax.Array) -> jax.Array:
    """mean (slope - 1)^2 (Gulrajani et al., NeurIPS 2017, equation 3)."""
    return jnp.square(slopes - 1.0).mean()


def interpolate(real: jax.Array, fake: jax.Array, alpha: jax.Array) -> jax.Array:
    """real + alpha * (fake - real); alpha of shape [B, 1, 1, 1] (textbook) or of the images' shape (COCO-GAN's code)."""
    return real + alpha * (fake - real)


def coordinate_error(prediction: jax.Array, target: jax.Array, trusted: jax.Array | None = None) -> jax.Array:
    """Mean squared error over batch and coordinates [B, c] (COCO-GAN, the spatial consistency loss).

    ``trusted``: bool [B]; samples where it is False keep their value but give no gradient (fakes beyond the border in post-training).
    """
    square = jnp.square(prediction - target)
    if trusted is not None:
        square = jnp.where(trusted[:, None], square, lax.stop_gradient(square))
    return square.mean()


def absolute_error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean absolute error (COCO-GAN, the content consistency loss of patch-guided generation)."""
    return jnp.abs(prediction - target).mean()


def cross_entropy(logits: jax.Array, labels: jax.Array, weights: jax.Array | None = None, void: int = -1) -> jax.Array:
    """Mean of -w[y] log softmax(logits)[y] over the pixels, divided by the mean of w[y]; pixels labelled ``void`` do not count.

    Args:
      logits: float [..., K].
      labels: whole numbers [...], in 0..K-1 or ``void``.
      weights: [K], one for each class; None: all 1.
      void: the label of pixels whose class is not known; they get no gradient at all. Any number, also inside 0..K-1.

    Returns:
      A scalar; 0 where no pixel counts.
    """
    labels = labels.astype(jnp.int32)
    counted = labels != void
    # Comparisons in place of indices, whose gradient is a scatter: 21 in place of 32 ms for 8 maps of 120x160 on one CPU core.
    hot = (labels[..., None] == jnp.arange(logits.shape[-1], dtype=jnp.int32)) & counted[..., None]
    nothing = jnp.zeros((), logits.dtype)
    each = counted.astype(logits.dtype)
    if weights is not None:
        each = jnp.where(hot, weights.astype(logits.dtype), nothing).sum(-1)
    highest = lax.stop_gradient(logits.max(-1, keepdims=True))
    shifted = logits - highest
    right = jnp.where(hot, shifted, nothing).sum(-1)
    surprise = jnp.log(jnp.exp(shifted).sum(-1)) - right
    total = each.sum()
    return (each * surprise).sum() / jnp.where(total > 0, total, jnp.ones((), logits.dtype))
