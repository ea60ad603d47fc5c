"""The seam statistic of images made by parts: how much sharper neighbouring pixels differ across the borders of patches than elsewhere.

Every image gives a *profile*; the statistic is read from the mean profile, so that it streams, shards and merges like any mean.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np


def profile(images: Any) -> Any:
    """Mean absolute differences of neighbours: images [n, H, W, C] -> float32 [n, (W - 1) + (H - 1) + 1].

    Of columns k and k + 1 for each k, of rows likewise, and of the last column and the first. numpy arrays (uint8 or float) give numpy
    arrays, arrays of JAX such arrays, also inside ``jit``.
    """
    if images.ndim != 4 or min(images.shape[1:3]) < 2:
        raise ValueError(f"images of shape {images.shape}: give [n, H, W, C] with sides of at least 2")
    array = np if isinstance(images, np.ndarray) else jnp
    images = images.astype(array.float32)
    columns = abs(images[:, :, 1:] - images[:, :, :-1]).mean((1, 3))
    rows = abs(images[:, 1:] - images[:, :-1]).mean((2, 3))
    wrap = abs(images[:, :, 0] - images[:, :, -1]).mean((1, 2))[:, None]
    return array.concatenate([columns, rows, wrap], 1)


def read(profile: Any, size: tuple[int, int], patch: tuple[int, int], periodic: bool = False) -> dict[str, float]:
    """The mean over the borders of patches divided by the mean over all other neighbours: about 1 where no seam can be seen.

    Args:
      profile: [(W - 1) + (H - 1) + 1], the mean over images.
      size: (H, W) of the images in pixels.
      patch: (height, width) of a patch in pixels.
      periodic: also across the wrap column (last against first), for panoramas.

    Returns:
      'columns' and 'rows' (each where there is such a border), 'wrap' where periodic, and 'seam', the mean of 'columns' and 'rows'
      (jaxgan's own measure). NaN where the images do not change at all.

    Raises:
      ValueError: patches that do not divide the image, or are as large.
    """
    profile = np.asarray(profile, np.float64)
    if profile.shape != (size[0] + size[1] - 1,):
        raise ValueError(f"a profile of shape {profile.shape} does not belong to images of {size[0]}x{size[1]} pixels")
    result: dict[str, float] = {}
    parts = {"columns": profile[: size[1] - 1], "rows": profile[size[1] - 1 : -1]}
    for (name, steps), side in zip(parts.items(), (patch[1], patch[0]), strict=True):
        if side < 1 or (len(steps) + 1) % side:
            raise ValueError(f"patches of {side} pixels do not divide a side of {len(steps) + 1}")
        border = np.zeros(len(steps), bool)
        border[side - 1 :: side] = True
        inside = steps[~border].mean() if (~border).any() else 0.0
        if border.any():
            result[name] = float(steps[border].mean() / inside) if inside else math.nan
        if periodic and name == "columns":
            result["wrap"] = float(profile[-1] / inside) if inside else math.nan
    both = [result[name] for name in ("columns", "rows") if name in result]
    if not both:
        raise ValueError(f"patches of {patch[0]}x{patch[1]} pixels are as large as the images: there is no seam")
    return {**result, "seam": float(np.mean(both))}
