"""COCO-GAN's geometry: patches, their coordinates, and the assembly micro -> macro -> full.

A patch is known by the pixel of its top left corner in the full image; its coordinate is an affine function of that pixel, chosen so
that the patches that touch the image's borders have the coordinates -1 and 1. Axis 0 is vertical (rows), axis 1 horizontal (columns),
and the first number of a coordinate is the vertical one.

Notation, for each axis: F full size, S macro size, p micro size in pixels; N = S/p micro patches across a macro patch; R = F/p micro
patches across the full image. Inside a macro or full image patches are ordered column by column: q = column * rows + row.
Source of the formulas: COCO-GAN (Lin et al., ICCV 2019), section 3, and its published code; the two degenerate cases F = S and F = p,
which are 0/0 there, have the coordinate 0 here.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Sizes in pixels as (height, width), checked on construction.

    ``cylindrical``: the horizontal axis is periodic and a coordinate is (vertical, cos, sin) of the angle instead of
    (vertical, horizontal).

    Raises:
      ValueError: a size that is not positive, or not a multiple of the micro patch, or a macro patch larger than the image.
    """

    full: tuple[int, int]
    macro: tuple[int, int]
    micro: tuple[int, int]
    cylindrical: bool = False

    def __post_init__(self):
        for axis, name in enumerate(("height", "width")):
            full, macro, micro = self.full[axis], self.macro[axis], self.micro[axis]
            if min(full, macro, micro) < 1:
                raise ValueError(f"{name}: full {full}, macro {macro} and micro {micro} must be positive")
            if full % micro or macro % micro:
                raise ValueError(
                    f"{name}: the micro patch of {micro} px must divide the macro patch ({macro} px) and the full image ({full} px)"
                )
            if macro > full:
                raise ValueError(f"{name}: the macro patch ({macro} px) is larger than the full image ({full} px)")

    @property
    def per_macro(self) -> tuple[int, int]:
        """(N, M): micro patches down and across a macro patch."""
        return self.macro[0] // self.micro[0], self.macro[1] // self.micro[1]

    @property
    def per_full(self) -> tuple[int, int]:
        """(rows, columns) of micro patches of the full image."""
        return self.full[0] // self.micro[0], self.full[1] // self.micro[1]

    @property
    def coordinate_size(self) -> int:
        """Numbers in a coordinate: 2, or 3 on the cylinder."""
        return 3 if self.cylindrical else 2

    @property
    def macro_positions(self) -> tuple[int, int]:
        """How many discrete macro positions there are (down, across), a micro patch apart."""
        (rows, columns), (n, m) = self.per_full, self.per_macro
        return rows - n + 1, columns if self.cylindrical else columns - m + 1


def _affine(pixel: jax.Array, room: int) -> jax.Array:
    """Maps 0 .. room to -1 .. 1; 0 where there is no room to move."""
    return pixel * (2.0 / room) - 1.0 if room else jnp.zeros_like(pixel)


def coordinates(geometry: Geometry, corner: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Coordinates of patches of ``size`` with the given top left pixels.

    Args:
      corner: [..., 2] (row, column) in pixels; whole or fractional, inside the image or beyond it.
      size: (height, width) of the patch: ``geometry.macro`` or ``geometry.micro``.

    Returns:
      float32 [..., 2] (vertical, horizontal), each in [-1, 1] for patches inside the image; on the cylinder [..., 3]
      (vertical, cos, sin) of the angle pi * (2 * column / width - 1), with values below 1e-6 set to 0.
    """
    corner = jnp.asarray(corner)
    corner = corner if corner.dtype == jnp.float64 else corner.astype(jnp.float32)
    vertical = _affine(corner[..., 0], geometry.full[0] - size[0])
    if not geometry.cylindrical:
        return jnp.stack([vertical, _affine(corner[..., 1], geometry.full[1] - size[1])], -1)
    angle = jnp.pi * _affine(corner[..., 1], geometry.full[1])
    circle = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    circle = jnp.where(jnp.abs(circle) < 1e-6, 0.0, circle)
    return jnp.concatenate([vertical[..., None], circle], -1)


def corners_inside(geometry: Geometry, corner: jax.Array) -> jax.Array:
    """Top left pixels of the micro patches of macro patches: [..., 2] -> [..., N * M, 2], column by column."""
    corner = jnp.asarray(corner)
    return corner[..., None, :] + lattice(geometry.per_macro, geometry.micro).astype(corner.dtype)


def lattice(count: tuple[int, int], step: tuple[int, int], beyond: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Top left pixels of a grid of patches, column by column: int32 [(rows + 2 * beyond_r) * (columns + 2 * beyond_c), 2].

    ``beyond`` continues the grid by that many patches past each of the two borders of an axis.
    """
    rows = np.arange(-beyond[0], count[0] + beyond[0]) * step[0]
    columns = np.arange(-beyond[1], count[1] + beyond[1]) * step[1]
    column, row = np.meshgrid(columns, rows, indexing="ij")
    return np.stack([row.ravel(), column.ravel()], -1).astype(np.int32)


def full_grid(geometry: Geometry, beyond: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Top left pixels of all micro patches of a full image, column by column; ``beyond`` as in ``lattice``.

    Raises:
      ValueError: ``beyond`` asks to leave a periodic axis.
    """
    if geometry.cylindrical and beyond[1]:
        raise ValueError(
            f"a cylinder has no left and right border to go beyond (asked: {beyond[1]} patches); extend the vertical axis only"
        )
    return lattice(geometry.per_full, geometry.micro, beyond)


def macro_corners(geometry: Geometry, beyond: int = 0) -> np.ndarray:
    """Top left pixels of all discrete macro positions, row index slowest: int32 [n, 2]; ``beyond`` micro patches past the borders."""
    down, across = geometry.macro_positions
    rows = np.arange(-beyond, down + beyond) * geometry.micro[0]
    sideways = 0 if geometry.cylindrical else beyond
    columns = np.arange(-sideways, across + sideways) * geometry.micro[1]
    row, column = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([row.ravel(), column.ravel()], -1).astype(np.int32)


def corners_of(geometry: Geometry, coordinate: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Inverse of ``coordinates``: float32 top left pixels [..., 2] of patches of ``size`` at the given coordinates."""
    coordinate = jnp.asarray(coordinate)
    row = (coordinate[..., 0] + 1.0) / 2.0 * (geometry.full[0] - size[0])
    if geometry.cylindrical:
        turn = jnp.arctan2(coordinate[..., 2], coordinate[..., 1]) / jnp.pi
        return jnp.stack([row, (turn + 1.0) / 2.0 * geometry.full[1] % geometry.full[1]], -1)
    return jnp.stack([row, (coordinate[..., 1] + 1.0) / 2.0 * (geometry.full[1] - size[1])], -1)


def assemble(patches: jax.Array, count: tuple[int, int]) -> jax.Array:
    """Puts patches side by side: [B, rows * columns, h, w, C], column by column -> [B, rows * h, columns * w, C]."""
    batch, _, height, width, channels = patches.shape
    rows, columns = count
    grid = patches.reshape(batch, columns, rows, height, width, channels)
    return grid.transpose(0, 2, 3, 1, 4, 5).reshape(batch, rows * height, columns * width, channels)


def split(images: jax.Array, count: tuple[int, int]) -> jax.Array:
    """Inverse of ``assemble``: [B, rows * h, columns * w, C] -> [B, rows * columns, h, w, C], column by column."""
    batch, height, width, channels = images.shape
    rows, columns = count
    grid = images.reshape(batch, rows, height // rows, columns, width // columns, channels)
    return grid.transpose(0, 3, 1, 2, 4, 5).reshape(batch, rows * columns, height // rows, width // columns, channels)


def crop(images: jax.Array, corner: jax.Array, size: tuple[int, int], periodic: bool = False) -> jax.Array:
    """One patch of each image on the device: [B, H, W, C], int [B, 2] -> [B, h, w, C]; ``periodic`` wraps columns."""
    if periodic:
        images = jnp.concatenate([images, images[:, :, : size[1]]], 2)

    def one(image, at):
        return jax.lax.dynamic_slice(image, (at[0], at[1], jnp.zeros_like(at[0])), (*size, image.shape[-1]))

    corner = jnp.asarray(corner)
    if periodic:
        corner = jnp.stack([corner[..., 0], corner[..., 1] % (images.shape[2] - size[1])], -1)
    return jax.vmap(one)(images, corner)


def crop_on_host(images: np.ndarray, corner: np.ndarray, size: tuple[int, int], periodic: bool = False) -> np.ndarray:
    """``crop`` in numpy, for the loader: only the macro patch travels to the device."""
    out = np.empty((len(images), *size, images.shape[-1]), images.dtype)
    width = images.shape[2]
    for n, (top, left) in enumerate(corner):
        left = left % width if periodic else left
        first = min(size[1], width - left)
        out[n, :, :first] = images[n, top : top + size[0], left : left + first]
        if first < size[1]:
            out[n, :, first:] = images[n, top : top + size[0], : size[1] - first]
    return out
