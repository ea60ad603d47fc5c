"""3x3 convolutions of networks that are not trained: only the gradient with respect to the images is ever wanted.

Embedding and inversion run the same kernels thousands of times, so what depends on the kernels alone is computed once:

- The gradient of a convolution is a convolution with the kernel turned by 180 degrees. Turned in advance it costs what the forward pass
  costs; the derived form is several times slower on a CPU inside ``lax.scan``, where it falls off the fast path.
- With many channels on small images the products are the cost. Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray, CVPR 2016)
  takes 16 products for four outputs in the place of 36; a convolution of a doubled image takes 9 (see ``freeze_upsample``). Both are
  exact up to rounding. On large images with few channels the transforms' own traffic outweighs them, and the plain form is kept.

Accelerators have their own choice of algorithms: ``minimal=False`` keeps the plain form everywhere.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgan.nets.layers import convolve, convolve_pool, upsample_convolve

MINIMAL_CHANNELS, MINIMAL_SIDE = 128, 64
"""Minimal filtering from this many input channels on, and up to this side of the small image; measured on one core, AVX2."""

# Rows: combinations of a kernel's three taps that meet the four (or three) combinations of pixels.
_SAME = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_UP = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 1]])
_POOL = np.array([[1, 0, 0], [1, 1, 1], [0, 0, -1]])


class FrozenKernel(NamedTuple):
    """A kernel ready for the forward pass and for the gradient with respect to the images."""

    forward: tuple[jax.Array, ...]
    """(kernel [3, 3, I, O],) or what its taps combine to, [I, O] each: 16 of them for a convolution, 9 for one of a doubled image."""
    backward: tuple[jax.Array, ...]
    """The same of the kernel turned by 180 degrees, with inputs and outputs exchanged."""


def _turned(kernel: jax.Array) -> jax.Array:
    return kernel[::-1, ::-1].transpose(0, 1, 3, 2)


def _combined(kernel: jax.Array, rows: np.ndarray) -> tuple[jax.Array, ...]:
    rows = jnp.asarray(rows, kernel.dtype)
    return tuple(jnp.einsum("ai,bj,ijco->abco", rows, rows, kernel, precision="highest").reshape(-1, *kernel.shape[2:]))


def pays(kernel: jax.Array, side: int) -> bool:
    """Whether minimal filtering is faster than the plain form, for images (before any doubling) of this side."""
    return kernel.shape[2] >= MINIMAL_CHANNELS and side <= MINIMAL_SIDE


def freeze(kernel: jax.Array, minimal: bool) -> FrozenKernel:
    """A kernel [3, 3, I, O] for ``convolve_frozen``."""
    if not minimal:
        return FrozenKernel((kernel,), (_turned(kernel),))
    return FrozenKernel(_combined(kernel, _SAME), _combined(_turned(kernel), _SAME))


def freeze_upsample(kernel: jax.Array, minimal: bool) -> FrozenKernel:
    """A kernel [3, 3, I, O] for ``upsample_convolve_frozen``.

    Minimal filtering of a doubled image: of the four combinations of pixels one is always zero, and of a tile's rows a, b, c on the
    small image there remain a - b, b and b - c. Per axis then y0 = (a - b) k0 + b (k0 + k1 + k2) and y1 = b (k0 + k1 + k2) - (b - c) k2.
    """
    if not minimal:
        return FrozenKernel((kernel,), (_turned(kernel),))
    return FrozenKernel(_combined(kernel, _UP), _combined(_turned(kernel), _POOL))


def _frozen_only(kernel: Any) -> None:
    if any(leaf.perturbed for leaf in jax.tree.leaves(kernel, is_leaf=lambda leaf: hasattr(leaf, "perturbed"))):
        raise ValueError("a frozen kernel has no gradient; train with the network's own parameters, not with frozen ones")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_frozen(x: jax.Array, kernel: FrozenKernel, precision: Any = None) -> jax.Array:
    """``convolve(x, kernel)`` of stride 1 with zero padding: [N, H, W, I] -> [N, H, W, O]; differentiable in ``x`` alone.

    ``precision``: of the products, forward and backward, on devices that round them.

    Raises:
      ValueError: a gradient with respect to the kernel is asked for.
    """
    return _convolve(x, kernel.forward, precision)


@jax.custom_vjp
def upsample_convolve_frozen(x: jax.Array, kernel: FrozenKernel) -> jax.Array:
    """``convolve(upsample(x), kernel)``: [N, H, W, I] -> [N, 2H, 2W, O]; differentiable in ``x`` alone.

    Raises:
      ValueError: a gradient with respect to the kernel is asked for.
    """
    if len(kernel.forward) == 1:
        return upsample_convolve(x, kernel.forward[0])
    return _double(x, kernel.forward)


def _convolve_forward(x, kernel, precision):
    _frozen_only(kernel)
    kernel = jax.tree.map(lambda leaf: leaf.value, kernel, is_leaf=lambda leaf: hasattr(leaf, "perturbed"))
    return _convolve(x.value, kernel.forward, precision), kernel


def _upsample_forward(x, kernel):
    _frozen_only(kernel)
    kernel = jax.tree.map(lambda leaf: leaf.value, kernel, is_leaf=lambda leaf: hasattr(leaf, "perturbed"))
    return upsample_convolve_frozen(x.value, kernel), kernel


def _nothing(kernel):
    return jax.tree.map(jnp.zeros_like, kernel)


def _convolve_backward(precision, kernel, cotangent):
    return _convolve(cotangent, kernel.backward, precision), _nothing(kernel)


def _upsample_backward(kernel, cotangent):
    if len(kernel.backward) == 1:
        return 4 * convolve_pool(cotangent, kernel.backward[0]), _nothing(kernel)
    return _halve(cotangent, kernel.backward), _nothing(kernel)


def _convolve(x: jax.Array, parts: tuple[jax.Array, ...], precision: Any) -> jax.Array:
    if len(parts) == 1:
        return convolve(x, parts[0], precision=precision)
    height, width = x.shape[1:3]
    odd = (height % 2, width % 2)
    padded = jnp.pad(x, ((0, 0), (1, 1 + odd[0]), (1, 1 + odd[1]), (0, 0)))
    height, width, columns = height + odd[0], width + odd[1], []
    for a, rows in enumerate(_differences([padded[:, i : i + height - 1 : 2] for i in range(4)])):
        cells = _differences([rows[:, :, i : i + width - 1 : 2] for i in range(4)])
        m = [jnp.matmul(cell, parts[4 * a + b].astype(x.dtype), precision=precision) for b, cell in enumerate(cells)]
        columns.append((m[0] + m[1] + m[2], m[1] - m[2] - m[3]))
    upper = [columns[0][b] + columns[1][b] + columns[2][b] for b in (0, 1)]
    lower = [columns[1][b] - columns[2][b] - columns[3][b] for b in (0, 1)]
    return _interleave(upper, lower)[:, : height - odd[0], : width - odd[1]]


def _differences(pixels: list[jax.Array]) -> tuple[jax.Array, ...]:
    return pixels[0] - pixels[2], pixels[1] + pixels[2], pixels[2] - pixels[1], pixels[1] - pixels[3]


def _interleave(upper: list[jax.Array], lower: list[jax.Array]) -> jax.Array:
    """Two pairs of [N, H, W, C], the pixels of every 2x2 block -> [N, 2H, 2W, C]."""
    batch, height, width, channels = upper[0].shape
    return jnp.stack([jnp.stack(upper, 3), jnp.stack(lower, 3)], 2).reshape(batch, 2 * height, 2 * width, channels)


def _double(x: jax.Array, parts: tuple[jax.Array, ...]) -> jax.Array:
    columns = []
    for a, rows in enumerate(_neighbours(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 1)):
        m = [cell @ parts[3 * a + b].astype(x.dtype) for b, cell in enumerate(_neighbours(rows, 2))]
        columns.append((m[0] + m[1], m[1] - m[2]))
    return _interleave([columns[0][b] + columns[1][b] for b in (0, 1)], [columns[1][b] - columns[2][b] for b in (0, 1)])


def _neighbours(padded: jax.Array, axis: int) -> tuple[jax.Array, ...]:
    size = padded.shape[axis]
    before, here, after = (lax.slice_in_dim(padded, i, size - 2 + i, axis=axis) for i in range(3))
    return before - here, here, here - after


def _halve(x: jax.Array, parts: tuple[jax.Array, ...]) -> jax.Array:
    """Sums of 2x2 blocks of a convolution: the transpose of ``_double``."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    total: Any = 0.0
    for a, rows in enumerate(_sums([padded[:, i : i + height - 1 : 2] for i in range(4)])):
        for b, cell in enumerate(_sums([rows[:, :, i : i + width - 1 : 2] for i in range(4)])):
            total = total + cell @ parts[3 * a + b].astype(x.dtype)
    return total


def _sums(pixels: list[jax.Array]) -> tuple[jax.Array, ...]:
    return pixels[0] - pixels[2], pixels[1] + pixels[2], pixels[1] - pixels[3]


convolve_frozen.defvjp(_convolve_forward, _convolve_backward, symbolic_zeros=True)
upsample_convolve_frozen.defvjp(_upsample_forward, _upsample_backward, symbolic_zeros=True)
