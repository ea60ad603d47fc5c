"""Scores of pairs: images of two sources matched by name, compared one by one (LPIPS, PSNR, SSIM, MS-SSIM)."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.features import Measure, network_measure
from jaxgan.metrics import ssim
from jaxgan.sources import Content, Images

METRICS = ("lpips", "psnr", "ssim", "ms_ssim")
LEAST_SIDES = {"lpips": 16, "psnr": 1, "ssim": ssim.WINDOW, "ms_ssim": ssim.LEAST_SIDE}
"""Pixels that the shorter side must have."""


def pair_measure(metrics: Sequence[str], params: Any = None) -> Measure:
    """A measure of ``paired`` images, [H, W, 6]: one column for each of `metrics`, which are some of ``METRICS``.

    Args:
      metrics: in the order of the columns.
      params: of LPIPS, from ``jaxgan.metrics.lpips.params``; default: the named weights 'vgg16' and 'lpips' of this machine.

    Raises:
      FileNotFoundError: LPIPS's weights are not on this machine; says how to get them.
    """
    protocol: dict[str, Any] = {"metrics": list(metrics), "range": "[-1, 1]"}
    if "lpips" in metrics and params is None:
        from jaxgan import weights
        from jaxgan.arrays import arrays_checksum
        from jaxgan.metrics import lpips

        vgg, linear = weights.load("vgg16"), weights.load("lpips")
        params = lpips.params(vgg, linear)
        protocol |= {"network": "vgg16", "weights": [arrays_checksum(vgg), arrays_checksum(linear)]}
    apply = functools.partial(_compare, tuple(metrics))
    return network_measure("pairs", len(metrics), apply, params, _signed, protocol)


def _signed(pair: np.ndarray) -> np.ndarray:
    return pair.astype(np.float32) / 127.5 - 1


def _compare(metrics: tuple[str, ...], params: Any, pairs: jax.Array) -> jax.Array:
    """[B, H, W, 6] in [-1, 1] -> [B, len(metrics)]; for PSNR the mean squared error, which is finite for equal images too."""
    from jaxgan.metrics import lpips

    functions = {"lpips": functools.partial(lpips.distance, params), "psnr": _squared, "ssim": ssim.ssim, "ms_ssim": ssim.ms_ssim}
    return jnp.stack([functions[name](pairs[..., :3], pairs[..., 3:]) for name in metrics], 1)


def _squared(real: jax.Array, fake: jax.Array) -> jax.Array:
    return jnp.square(real - fake).mean((1, 2, 3))


def stored_lpips(params: Any, real: Any, fake: Any, most: int = 256) -> np.ndarray:
    """LPIPS of images as they are written (8 bits), at most at this side by means over pixels: [N, H, W, 3] twice -> float32 [N].

    Args:
      params: from ``jaxgan.metrics.lpips.params``.
      real, fake: uint8, or float in [-1, 1]; at least 16 px.
      most: longest side at which they are compared.
    """
    from jaxgan import perceptual, viz
    from jaxgan.metrics import lpips

    height, width = np.shape(real)[1:3]
    share = min(1.0, most / max(height, width))
    size = (max(1, round(height * share)), max(1, round(width * share)))
    seen = [perceptual.resize(jnp.asarray(_signed(viz.to_uint8(images))), size) for images in (real, fake)]
    return np.asarray(lpips.distance(params, *seen))


def pair_values(metrics: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """The metrics [n, len(metrics)] in float64 of the rows that ``pair_measure`` makes; the PSNR of equal images is infinite."""
    values = rows.astype(np.float64)
    if "psnr" in metrics:
        with np.errstate(divide="ignore"):
            column = list(metrics).index("psnr")
            values[:, column] = 10 * np.log10(ssim.RANGE**2 / values[:, column])
    return values


def paired(real: Images, fake: Images) -> Images:
    """Images uint8 [H, W, 6], a real one and the fake of the same name beside each other in the channels; in the order of `real`.

    A name is the path below the folder without its ending.

    Raises:
      ValueError: names that only one of them has, or that one has twice; reading a pair of two sizes.
    """
    places = []
    for images in (real, fake):
        places.append({os.path.splitext(images.name(i))[0]: i for i in range(len(images))})
        if len(places[-1]) < len(images):
            raise ValueError(f"{images.spec} has {len(images)} images under {len(places[-1])} names: pairs need one image for each name")
    here, there = places
    if here.keys() != there.keys():
        missing = [f"{name} only in {real.spec}" for name in here if name not in there]
        missing += [f"{name} only in {fake.spec}" for name in there if name not in here]
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(f"images are paired by name, and the names differ: {'; '.join(missing[:3])}{more}")
    partner = [there[name] for name in here]

    def read(i: int) -> np.ndarray:
        a, b = real[i], fake[partner[i]]
        if a.shape != b.shape:
            sizes = f"{a.shape[0]}x{a.shape[1]} in {real.spec} and {b.shape[0]}x{b.shape[1]} in {fake.spec}"
            raise ValueError(f"{real.name(i)} is {sizes}: pairs need one size; import both at it first (jaxgan data import)")
        return np.concatenate([a, b], -1)

    def digest(chosen: Sequence[int]) -> str:
        return hashlib.sha256(f"{real.take(chosen).digest} {fake.take([partner[i] for i in chosen]).digest}".encode()).hexdigest()

    content = Content([real.name(i) for i in range(len(real))], read, digest)
    return Images(f"{real.spec} | {fake.spec}", content, range(len(real)), {"kind": "pairs"})


def check_size(metrics: Sequence[str], images: Images) -> None:
    """ValueError where a metric cannot look at the first of these pairs: it is too small, or its two images have two sizes."""
    height, width = images[0].shape[:2]
    for name in metrics:
        if min(height, width) < LEAST_SIDES[name]:
            raise ValueError(f"{name} needs sides of at least {LEAST_SIDES[name]} px, and the images are {height}x{width}: leave it out")
