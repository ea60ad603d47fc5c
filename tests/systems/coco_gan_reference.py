"""One training step of COCO-GAN written a second time, in float64 and for legibility only: plain formulas over arrays by TensorFlow name.

It shares nothing with the library. Convolutions are one product with the nine neighbours of every pixel, upsampling is a repetition,
pooling a mean over a reshaped axis. Run it inside ``jax.enable_x64(True)``.

Every array lives in one flat dict, under the name that the published checkpoints use: weights, singular vectors (``u``) and running
statistics alike.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Arrays = dict[str, jax.Array]
TRAINABLE = ("w", "b", "weights", "biases", "gamma", "beta")
LEARNING_RATES = {"D": 4e-4, "G": 1e-4, "D_beyond": 4e-4, "G_beyond": 1e-4, "Q": 1e-4}
OWNS = {
    "D": ("D_", "GD_"),
    "G": ("G_", "GD_"),
    "D_beyond": ("D_", "GD_"),
    "G_beyond": ("G_generator/g_resblock_0/", "G_generator/g_resblock_1/"),
    "Q": ("Q_",),
}


class Sizes(NamedTuple):
    """In pixels; images and patches are square."""

    full: int = 64
    macro: int = 32
    micro: int = 16


class Weights(NamedTuple):
    """Of the terms of the objectives."""

    penalty: float = 10.0
    spatial: float = 100.0
    content: float = 0.0


class Draws(NamedTuple):
    """What one update sees. ``corner``: top left pixel of the macro patch [B, 2], of the reals and of the fakes."""

    real: jax.Array  # [B, S, S, C] in [-1, 1]
    latents: jax.Array  # [B, z]
    real_corner: jax.Array
    fake_corner: jax.Array
    alpha: jax.Array  # [B, S, S, C], weight of the fake in the interpolation


# -- layers ------------------------------------------------------------------------------------------------------------------------


def unit(a: jax.Array) -> jax.Array:
    return a / (jnp.sqrt(jnp.sum(a * a)) + 1e-12)


def spectral(v: Arrays, scope: str) -> tuple[Arrays, Arrays]:
    """Weights over the estimate of their largest singular value, and the vectors after the one iteration; gradients flow through it."""
    divided, vectors = {}, {}
    for name in v:
        if name.startswith(scope) and name.endswith("/u"):
            weight = v[name[:-1] + "w"]
            matrix = weight.reshape(-1, weight.shape[-1])
            other = unit(v[name] @ matrix.T)
            vectors[name] = unit(other @ matrix)
            divided[name[:-1] + "w"] = weight / (other @ matrix @ vectors[name].T)[0, 0]
    return {**v, **divided}, vectors


def linear(v: Arrays, name: str, x: jax.Array) -> jax.Array:
    weight, bias = ("w", "b") if f"{name}/w" in v else ("weights", "biases")
    return x @ v[f"{name}/{weight}"] + v[f"{name}/{bias}"]


def conv(v: Arrays, name: str, x: jax.Array) -> jax.Array:
    weight = v[f"{name}/w"]
    if weight.shape[0] == 1:
        return x @ weight[0, 0] + v[f"{name}/b"]
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(len(x), -1, x.shape[-1])
    rows, columns = (np.arange(n)[:, None] + np.arange(3) for n in (height, width))
    around = padded[:, rows[:, None, :, None] * (width + 2) + columns[None, :, None, :]]  # [n, height, width, 3, 3, c]
    return jnp.einsum("nhwijc,ijco->nhwo", around, weight) + v[f"{name}/b"]


def relu(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x, 0.0)


def double(x: jax.Array) -> jax.Array:
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


def halve(x: jax.Array) -> jax.Array:
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    return mean, ((x - mean) ** 2).mean(axes)


def batch_norm(v: Arrays, name: str, x: jax.Array) -> tuple[jax.Array, Arrays]:
    """By batch statistics; the running variance follows the unbiased one."""
    mean, variance = moments(x)
    n = x.size // x.shape[-1]
    after = {
        f"{name}/moving_mean": 0.9 * v[f"{name}/moving_mean"] + 0.1 * mean,
        f"{name}/moving_variance": 0.9 * v[f"{name}/moving_variance"] + 0.1 * variance * n / (n - 1),
    }
    return (x - mean) / jnp.sqrt(variance + 1e-5) * v[f"{name}/gamma"] + v[f"{name}/beta"], after


def conditional_norm(v: Arrays, name: str, x: jax.Array, condition: jax.Array) -> tuple[jax.Array, Arrays]:
    """The published normalisation: the variance is squared under the root."""
    mean, variance = moments(x)
    after = {
        f"{name}/mean_recorder": 0.99 * v[f"{name}/mean_recorder"] + 0.01 * mean,
        f"{name}/var_recorder": 0.99 * v[f"{name}/var_recorder"] + 0.01 * variance,
    }
    gamma = linear(v, f"{name}/fully_connected", condition)[:, None, None]
    beta = linear(v, f"{name}/fully_connected_1", condition)[:, None, None]
    return gamma * (x - mean) / jnp.sqrt(variance**2 + 1e-5) + beta, after


# -- networks ----------------------------------------------------------------------------------------------------------------------


def coordinate(corner: jax.Array, full: int, size: int) -> jax.Array:
    return 2.0 * corner / (full - size) - 1.0


def generate(v: Arrays, sizes: Sizes, latents: jax.Array, corner: jax.Array) -> tuple[jax.Array, Arrays]:
    """Macro patches [B, S, S, C] and the running arrays of the generator afterwards."""
    v, after = spectral(v, "G_")
    rows = sizes.macro // sizes.micro
    inside = np.array([(row, column) for column in range(rows) for row in range(rows)], float) * sizes.micro  # rows fastest
    at = coordinate((corner[:, None] + inside).reshape(-1, 2), sizes.full, sizes.micro)
    condition = jnp.concatenate([jnp.repeat(latents, rows * rows, 0), at], 1)
    x = linear(v, "G_generator/g_z_fc", condition).reshape(len(condition), 2, 2, -1)
    for k in range(sizes.micro.bit_length() - 2):  # 2 px doubled until a micro patch; no block after that
        block = f"G_generator/g_resblock_{k}/g_resblock_"
        h, one = conditional_norm(v, block + "cbn_1", x, condition)
        h = conv(v, block + "conv_1", double(relu(h)))
        h, two = conditional_norm(v, block + "cbn_2", h, condition)
        x = conv(v, block + "conv_2", relu(h)) + conv(v, block + "conv_sc", double(x))
        after = {**after, **one, **two}
    x, last = batch_norm(v, "G_generator/g_last_bn", x)
    x = jnp.tanh(conv(v, "G_generator/g_last_conv_2", relu(x)))
    grid = x.reshape(len(latents), rows, rows, *x.shape[1:])  # sample, column, row
    strips = jnp.concatenate([grid[:, :, row] for row in range(rows)], 2)
    return jnp.concatenate([strips[:, column] for column in range(rows)], 2), {**after, **last}


def discriminate(v: Arrays, x: jax.Array, at: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """(features, logits) from weights that are already divided; without a coordinate there is no projection."""
    blocks = sum(name.endswith("conv_sc/w") and name.startswith("D_") for name in v)
    for k in range(blocks):
        block = f"D_discriminator/d_resblock_{k}/d_resblock_conv_"
        shrink = halve if k < blocks - 1 else lambda a: a
        h = conv(v, block + "1", relu(x) if k else x)
        x = shrink(conv(v, block + "2", relu(h))) + conv(v, block + "sc", shrink(x))
    features = relu(x).sum((1, 2))
    logits = linear(v, "D_discriminator/main_steam_out", features)[:, 0]
    if at is not None:
        logits += jnp.sum(features * linear(v, "D_discriminator/y_emb", at), 1)
    return features, logits


def head(v: Arrays, scope: str, features: jax.Array) -> tuple[jax.Array, Arrays]:
    """Prediction by batch statistics, from weights that are already divided, and the running statistics afterwards."""
    h, after = batch_norm(v, f"{scope}/bn1", linear(v, f"{scope}/fc1", features))
    return jnp.tanh(linear(v, f"{scope}/fc2", jnp.where(h > 0, h, 0.2 * h))), after


# -- objectives --------------------------------------------------------------------------------------------------------------------


def spatial_errors(v, sizes, features_real, features_fake, draws) -> tuple[jax.Array, jax.Array, Arrays]:
    """Coordinate errors of reals and fakes; a fake beyond the border counts but teaches nothing. ``v``: weights already divided."""
    at_real, at_fake = (coordinate(c, sizes.full, sizes.macro) for c in (draws.real_corner, draws.fake_corner))
    prediction, first = head(v, "GD_spatial_prediction_head", features_real)
    real = jnp.mean((prediction - at_real) ** 2)
    prediction, second = head({**v, **first}, "GD_spatial_prediction_head", features_fake)
    squares = (prediction - at_fake) ** 2
    inside = jnp.all(jnp.abs(at_fake) <= 1 + 1e-4, 1, keepdims=True)
    return real, jnp.mean(jnp.where(inside, squares, jax.lax.stop_gradient(squares))), second


def content_error(v: Arrays, features: jax.Array, latents: jax.Array) -> tuple[jax.Array, Arrays]:
    divided, vectors = spectral(v, "Q_")
    prediction, after = head(divided, "Q_content_prediction_head", features)
    return jnp.mean(jnp.abs(latents - prediction)), {**vectors, **after}


def judge(v: Arrays, sizes: Sizes, draws: Draws, fake: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Features and logits of reals, then of fakes; together, for the trunk has no batch statistics."""
    corners = jnp.concatenate([draws.real_corner, draws.fake_corner])
    features, logits = discriminate(v, jnp.concatenate([draws.real, fake]), coordinate(corners, sizes.full, sizes.macro))
    n = len(fake)
    return features[:n], logits[:n], features[n:], logits[n:]


def discriminator_objective(own: Arrays, v: Arrays, sizes: Sizes, weights: Weights, draws: Draws, fake: jax.Array):
    divided, d_vectors = spectral({**v, **own}, "D_")
    divided, a_vectors = spectral(divided, "GD_")
    features_real, real, features_fake, fakes = judge(divided, sizes, draws, fake)
    mixed = draws.real + draws.alpha * (fake - draws.real)
    slopes = jnp.sqrt(jnp.sum(jax.grad(lambda x: discriminate(divided, x, None)[1].sum())(mixed) ** 2, 1))
    penalty = weights.penalty * jnp.mean((slopes - 1) ** 2)
    at_real, at_fake, statistics = spatial_errors(divided, sizes, features_real, features_fake, draws)
    content, _ = content_error({**v, **own}, features_fake, draws.latents)
    total = fakes.mean() - real.mean() + penalty + weights.spatial * (at_real + at_fake) + weights.content * content
    info = {"wasserstein": real.mean() - fakes.mean(), "penalty": penalty, "slope": slopes.mean()}
    info |= {"spatial/real": at_real, "spatial/fake": at_fake, "content": content}
    return total, ({**d_vectors, **a_vectors, **statistics}, info)


def generator_objective(own: Arrays, v: Arrays, sizes: Sizes, weights: Weights, draws: Draws, _):
    fake, running = generate({**v, **own}, sizes, draws.latents, draws.fake_corner)
    divided, _ = spectral({**v, **own}, "D_")
    divided, a_vectors = spectral(divided, "GD_")
    features_real, _, features_fake, fakes = judge(divided, sizes, draws, fake)
    at_real, at_fake, statistics = spatial_errors(divided, sizes, features_real, features_fake, draws)
    content, _ = content_error({**v, **own}, features_fake, draws.latents)
    total = -fakes.mean() + weights.spatial * (at_real + at_fake) + weights.content * content
    return total, ({**running, **a_vectors, **statistics}, {})


def content_objective(own: Arrays, v: Arrays, sizes: Sizes, weights: Weights, draws: Draws, fake: jax.Array):
    divided, _ = spectral(v, "D_")
    features, logits = discriminate(divided, fake, coordinate(draws.fake_corner, sizes.full, sizes.macro))
    content, running = content_error({**v, **own}, features, draws.latents)
    return -logits.mean() + weights.content * content, (running, {})


OBJECTIVES = {"D": discriminator_objective, "G": generator_objective, "Q": content_objective}
# Without LLVM's optimisations the compile takes half as long, and a step on four small images runs in a second anyway.
quickly_compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.partial(quickly_compiled, static_argnums=1)
def fakes_of(v: Arrays, sizes: Sizes, draws: Draws) -> jax.Array:
    return generate(v, sizes, draws.latents, draws.fake_corner)[0]


@functools.partial(quickly_compiled, static_argnums=(0, 3))
def differentiate(kind: str, own: Arrays, v: Arrays, sizes: Sizes, weights: Weights, draws: Draws, fake: jax.Array):
    return jax.value_and_grad(OBJECTIVES[kind], has_aux=True)(own, v, sizes, weights, draws, fake)


# -- the step ----------------------------------------------------------------------------------------------------------------------


def owned(v: Arrays, player: str) -> Arrays:
    """The trainable arrays that a player moves."""
    return {name: v[name] for name in v if name.startswith(OWNS[player]) and name.rsplit("/", 1)[1] in TRAINABLE}


class Result(NamedTuple):
    arrays: dict[str, np.ndarray]
    nu: dict[str, dict[str, np.ndarray]]
    """Second moments by player."""
    gradients: dict[str, dict[str, np.ndarray]]
    info: dict[str, float]


def norm(arrays: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(np.sum(a**2) for a in arrays.values())))


def train_step(v, nu, count: int, sizes: Sizes, weights: Weights, draws: dict[str, Draws], nudges: dict | None = None) -> Result:
    """Every player of ``draws`` in its order, each on what the one before left. ``count``: this step's number, from 1.

    ``nu``: second moments before; a player that is not in it starts from zeros. Adam has beta1 = 0, beta2 = 0.999, epsilon 1e-8.
    ``nudges``: by player and name, added to the movements.
    """
    after, gradients, info = {}, {}, {}
    for player, seen in draws.items():
        kind, suffix = player[0], player[1:]
        fake = fakes_of(v, sizes, seen)
        # G_beyond takes from G's gradient the blocks that it owns
        (loss, (running, more)), whole = differentiate(kind, owned(v, kind), v, sizes, weights, seen, fake)
        own = owned(v, player)
        gradient = {name: np.asarray(whole[name]) for name in own}
        squares = {n: 0.001 * g**2 + (0.999 * nu[player][n] if player in nu else 0.0) for n, g in gradient.items()}
        scale = 1 - 0.999**count
        moved = {n: own[n] - LEARNING_RATES[player] * g / (np.sqrt(squares[n] / scale) + 1e-8) for n, g in gradient.items()}
        moved |= {name: moved[name] + nudge for name, nudge in (nudges or {}).get(player, {}).items()}
        v = {**v, **{name: np.asarray(value) for name, value in running.items()}, **moved}
        after[player], gradients[player] = squares, gradient
        info |= {f"loss/{player}": loss, f"gradient/{player}": norm(gradient), **{name + suffix: value for name, value in more.items()}}
    return Result(v, after, gradients, {name: float(value) for name, value in info.items()})
