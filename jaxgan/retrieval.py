"""Nearest frames of other clips: whose pose image a target gets, when no clip says who stands like whom.

Frames are described by what tells of the pose and little of the colour (or, for comparison, by what tells of the colour), and the K nearest
of every frame are searched exactly, in blocks of bounded memory, on the host. Frames of one group (a clip, a video, a subject) never serve
each other. Xiao, Liu, Lee (ICCV 2019) take features of a pretrained convnet; the other descriptions and all numbers are chosen here.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

FEATURES = ("hog", "convnet", "rgb", "luminance", "random", "oracle")
"""What may describe a frame; also 'encoder:WORKDIR', the pose code of a run."""
ENCODED = 256
"""Frames that an encoder is given at a time."""
BLOCK_BYTES = 128 << 20
"""Similarities held at a time."""
MEMORY_BYTES = 512 << 20
"""Descriptions that take more lie in a temporary file that is mapped."""
COMMON = 0.25
"""A colour that fills more than this share of the mean frame is the ground, and counts in no comparison of colours."""
VERSION = 1
"""Part of a kept index's name: raised when a description changes."""
JITTER = 1e-4
"""Noise that decides among equally near frames, in units of a score."""


class Index(NamedTuple):
    """The neighbours of every frame; frames are numbered through all clips."""

    neighbours: np.ndarray
    """int32 [frames, K], nearest first; -1 where there is no further frame of another group."""
    scores: np.ndarray
    """float32 [frames, K]: cosines; minus half the squared distance for 'oracle', 0 for 'random'."""
    colours: np.ndarray
    """float32 [frames, K]: intersection of the two frames' colours, in [0, 1]."""


# -- descriptions -------------------------------------------------------------------------------------------------------------------


def hog(frames: np.ndarray) -> np.ndarray:
    """Histograms of gradients (Dalal and Triggs, CVPR 2005): uint8 [n, H, W, 3] -> float32 [n, 1764].

    8 x 8 cells over the frame (8 pixels each where it is 64 wide), 9 unsigned orientations between which a gradient is divided linearly,
    the gradient of the channel where it is largest, 2 x 2 blocks of cells each of length 1.
    """
    n, height, width, _ = frames.shape
    if min(height, width) < 16:
        raise ValueError(
            f"frames of {height}x{width}: gradients in 8 x 8 cells need 16 pixels or more; use features 'rgb' or larger frames"
        )
    rows, columns = height // 8 * 8, width // 8 * 8
    top, left = (height - rows) // 2, (width - columns) // 2
    pixels = frames[:, top : top + rows, left : left + columns].astype(np.float32)
    down, right = np.zeros_like(pixels), np.zeros_like(pixels)
    down[:, 1:-1] = pixels[:, 2:] - pixels[:, :-2]
    right[:, :, 1:-1] = pixels[:, :, 2:] - pixels[:, :, :-2]
    squared = down * down + right * right
    largest = squared.argmax(-1)[..., None]
    down, right, squared = (np.take_along_axis(array, largest, -1)[..., 0] for array in (down, right, squared))
    strength = np.sqrt(squared)
    place = (np.arctan2(down, right) % np.float32(np.pi)) * np.float32(9 / np.pi) - np.float32(0.5)
    low = np.floor(place)
    part = place - low
    cell = (np.arange(rows) // (rows // 8))[:, None] * 8 + (np.arange(columns) // (columns // 8))[None]
    base = (np.arange(n)[:, None, None] * 64 + cell[None]) * 9
    cells = np.zeros(n * 64 * 9)
    for orientation, weight in ((low.astype(np.int64) % 9, strength * (1 - part)), ((low.astype(np.int64) + 1) % 9, strength * part)):
        cells += np.bincount((base + orientation).reshape(-1), weight.reshape(-1), n * 64 * 9)
    cells = cells.reshape(n, 8, 8, 9)
    blocks = np.concatenate([cells[:, :-1, :-1], cells[:, :-1, 1:], cells[:, 1:, :-1], cells[:, 1:, 1:]], -1)
    blocks = blocks / np.sqrt(np.square(blocks).sum(-1, keepdims=True) + 1.0)
    return blocks.reshape(n, -1).astype(np.float32)


def rgb(frames: np.ndarray) -> np.ndarray:
    """Colours of 16 x 16 areas, about the grey middle: uint8 [n, H, W, 3] -> float32 [n, 768]."""
    return (areas(frames.astype(np.float32), 16) / 127.5 - 1).reshape(len(frames), -1)


def luminance(frames: np.ndarray) -> np.ndarray:
    """Luma (ITU-R 601) of 16 x 16 areas, about the grey middle: uint8 [n, H, W, 3] -> float32 [n, 256]."""
    grey = frames.astype(np.float32) @ np.array([[0.299], [0.587], [0.114]], np.float32)
    return (areas(grey, 16) / 127.5 - 1).reshape(len(frames), -1)


def areas(maps: np.ndarray, side: int) -> np.ndarray:
    """Means over side x side areas: float32 [n, H, W, C] -> [n, side, side, C]; a smaller map stays as it is in that direction."""
    for axis in (1, 2):
        length = maps.shape[axis]
        if length > side:
            edges = np.arange(side + 1) * length // side
            counts = np.diff(edges).astype(np.float32).reshape(-1, *[1] * (3 - axis))
            maps = np.add.reduceat(maps, edges[:-1], axis) / counts
    return maps


def histograms(frames: np.ndarray) -> np.ndarray:
    """Shares of 8 x 8 x 8 colours in the middle three fourths of each side: uint8 [n, H, W, 3] -> float32 [n, 512], rows sum to 1."""
    n, height, width, _ = frames.shape
    middle = frames[:, height // 8 : height - height // 8, width // 8 : width - width // 8].astype(np.int64) // 32
    bins = (middle @ np.array([64, 8, 1])).reshape(n, -1)
    counts = np.bincount((bins + np.arange(n)[:, None] * 512).reshape(-1), minlength=n * 512).reshape(n, 512)
    return (counts / bins.shape[1]).astype(np.float32)


def pose_vectors(poses: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Known poses [n, P] as vectors whose distance is that of the poses, float32 [n, D].

    'heading' goes round: cosine and sine. 'action', 'direction' and 'frame' are equal or not. The rest counts as it is, 'arm' by 0.35.
    """
    columns = []
    for name, values in zip(names, poses.T.astype(np.float32), strict=True):
        if name == "heading":
            columns += [np.cos(values), np.sin(values)]
        elif name in ("action", "direction", "frame"):
            columns += [(values == value).astype(np.float32) for value in np.unique(values)]
        else:
            columns.append(values * (np.float32(0.35) if name == "arm" else np.float32(1)))
    return np.stack(columns, -1)


def convnet(path: str = "") -> Callable[[np.ndarray], np.ndarray]:
    """Describes frames by VGG-16's conv4_3 behind its ReLU, as means over 4 x 4 areas, each area of length 1: [n, H, W, 3] -> [n, D].

    ``path``: the weights' file; empty: where ``jaxgan weights`` keeps them. FileNotFoundError says where they come from.
    """
    from jaxgan import perceptual, weights
    from jaxgan.nets import vgg

    params = vgg.params(weights.load("vgg16", path or None))
    preprocessing = weights.about("vgg16", path or None)["preprocessing"]

    def describe(frames: np.ndarray) -> np.ndarray:
        images = perceptual.normalise((frames.astype(np.float32) / np.float32(127.5)) - np.float32(1), preprocessing)
        maps = np.asarray(vgg.features(params, images, ("relu4_3",))["relu4_3"])
        cells = areas(maps, 4)
        cells = cells / np.maximum(np.sqrt(np.square(cells).sum(-1, keepdims=True)), 1e-12)
        return cells.reshape(len(frames), -1)

    return describe


def encoder(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """Describes frames by the pose code of the run in the workdir `path`."""
    from jaxgan.swapping import open_swapper

    swapper, params, _ = open_swapper(path)
    return pose_codes(swapper, params, path)


def pose_codes(swapper: Any, params: Any, name: str = "the encoder") -> Callable[[np.ndarray], np.ndarray]:
    """Describes frames by the pose code of a ``jaxgan.swapping.Swapper`` with these networks: uint8 [n, S, S, 3] -> float32 [n, d].

    `name`: of the networks, for the error where frames have another size (ValueError).
    """
    import jax

    code = jax.jit(lambda params, images: swapper.pose_vector(swapper.pose(params, images)))

    def describe(frames: np.ndarray) -> np.ndarray:
        if frames.shape[1:] != (swapper.size, swapper.size, 3):
            raise ValueError(f"{name} reads images of {swapper.size} pixels, the clips have {frames.shape[1]}x{frames.shape[2]}")
        blocks = [frames[start : start + ENCODED] for start in range(0, len(frames), ENCODED)]
        # Powers of two, so that clips of many lengths take few programs.
        filled = [np.pad(block, [(0, (1 << (len(block) - 1).bit_length()) - len(block)), (0, 0), (0, 0), (0, 0)]) for block in blocks]
        # Arrays of numpy go wherever the networks lie: in a run, on all devices of its mesh.
        found = [np.asarray(code(params, images.astype(np.float32) / np.float32(127.5) - np.float32(1))) for images in filled]
        return np.concatenate([codes[: len(block)].reshape(len(block), -1) for codes, block in zip(found, blocks, strict=True)])

    return describe


# -- search -------------------------------------------------------------------------------------------------------------------------


def nearest(
    vectors: np.ndarray,
    group: np.ndarray,
    neighbours: int,
    *,
    distance: bool = False,
    ties: int | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest frames of other groups, exact, the same for every block size.

    Args:
      vectors: float32 [n, D]; of length 1 each, for cosines.
      group: whole numbers [n].
      neighbours: K.
      distance: compare by distance in the place of the inner product.
      ties: a seed: among frames whose scores differ by less than ``JITTER``, each frame gets others by chance. None: equal ones by number,
        so that where many frames are equal all get the same few.
      block_bytes: similarities held at a time.

    Returns:
      (int32 [n, K], nearest first, -1 where none is left; float32 [n, K]: inner products, or minus half the squared
      distances). Candidates are found in float32 and ranked in float64.
    """
    n = len(vectors)
    found, scores = np.full((n, neighbours), -1, np.int32), np.full((n, neighbours), -np.inf, np.float32)
    halves = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float32) / np.float32(2) if distance else None
    candidates = min(n, neighbours + 8)
    rng = np.random.default_rng((0 if ties is None else ties, 3))
    # One long row of noise, which every frame reads from a place of its own: what block a frame is in changes nothing.
    noise = rng.uniform(0, 0 if ties is None else JITTER, 2 * n).astype(np.float32)
    places = rng.integers(0, n, n)
    rows = max(1, block_bytes // (4 * n))
    for start in range(0, n, rows):
        block = slice(start, min(start + rows, n))
        similar = vectors[block] @ vectors.T
        if distance:
            similar -= halves
        if ties is not None:
            for row, place in zip(similar, places[block], strict=True):
                row += noise[place : place + n]
        similar[group[block, None] == group[None]] = -np.inf
        chosen = (
            np.argpartition(similar, n - candidates, axis=1)[:, n - candidates :]
            if candidates < n
            else np.tile(np.arange(n), (len(similar), 1))
        )
        chosen.sort(axis=1)
        other = np.isfinite(np.take_along_axis(similar, chosen, 1))
        for first in range(0, len(chosen), 64):
            part = slice(first, first + 64)
            here, there = vectors[block][part].astype(np.float64)[:, None], vectors[chosen[part]].astype(np.float64)
            exact = -np.square(here - there).sum(-1) / 2 if distance else (here * there).sum(-1)
            exact = np.where(other[part], exact, -np.inf)
            rank = exact.round(9) + noise[places[block][part][:, None] + chosen[part]]
            order = np.argsort(-rank, axis=1, kind="stable")[:, :neighbours]
            best = np.take_along_axis(exact, order, 1)
            at = slice(start + first, start + first + len(order))
            found[at, : order.shape[1]] = np.where(np.isfinite(best), np.take_along_axis(chosen[part], order, 1), -1)
            scores[at, : order.shape[1]] = best
    return found, scores


def random_frames(group: np.ndarray, neighbours: int, seed: int) -> np.ndarray:
    """K frames of other groups for every frame, by chance, different ones while there are enough: int32 [n, K], -1 where there are none."""
    n, found = len(group), np.full((len(group), neighbours), -1, np.int32)
    order = np.argsort(group, kind="stable")
    _, firsts, counts = np.unique(group[order], return_index=True, return_counts=True)
    for first, count in zip(firsts, counts, strict=True):
        others = n - count
        for frame in order[first : first + count]:
            rng = np.random.default_rng((seed, 5, int(frame)))
            picks = rng.choice(others, min(neighbours, others), replace=False) if others < 1000 else rng.integers(0, others, neighbours)
            picks = order[np.where(picks >= first, picks + count, picks)]
            found[frame, : len(picks)] = picks
    return found


def build_index(
    clips: Any,
    features: str | Callable[[np.ndarray], np.ndarray],
    neighbours: int,
    seed: int = 0,
    weights: str = "",
    block_bytes: int = BLOCK_BYTES,
) -> Index:
    """The neighbours of every frame of the clips (``jaxgan.data.clips.Clips``), searched now.

    `features`: one of ``FEATURES``, 'encoder:WORKDIR', or ``describe(frames uint8 [n, H, W, 3]) -> [n, D]``, whose rows are compared by
    their cosines.

    Raises:
      ValueError: unknown features, or 'oracle' where no poses are known. FileNotFoundError: convnet weights are not on this machine.
    """
    describe = _describer(clips, features, weights)
    lengths = np.array([clips.length(i) for i in range(len(clips))])
    group = np.repeat(np.asarray(clips.group), lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    colours = np.empty((len(group), 512), np.float16)
    with tempfile.TemporaryDirectory() as scratch:
        vectors = None
        for i in range(len(clips)):
            frames, block = clips.frames(i), slice(starts[i], starts[i + 1])
            colours[block] = histograms(frames)
            if describe is not None:
                found = describe(frames, i)
                if vectors is None:
                    vectors = _empty((len(group), found.shape[1]), scratch)
                vectors[block] = found
        if features == "random":
            found = random_frames(group, neighbours, seed)
            scores = np.where(found >= 0, 0, -np.inf).astype(np.float32)
        else:
            found, scores = nearest(
                vectors,
                group,
                neighbours,
                distance=features == "oracle",
                ties=seed if features == "oracle" else None,
                block_bytes=block_bytes,
            )
        del vectors
    return Index(found, scores, _intersections(colours, found))


def save_index(file: Any, index: Index) -> None:
    """Writes an index whole or not at all; `file`: anything ``etils.epath`` takes. Raises OSError."""
    from jaxgan.files import write_atomic

    out = io.BytesIO()
    np.savez(out, **index._asdict())
    write_atomic(file, out.getvalue())


def open_index(clips: Any, features: str, neighbours: int, seed: int = 0, weights: str = "", root: str = "") -> Index:
    """`build_index`, kept in the folder `retrieval` of the prepared sets (`root`: as ``data.root``), by the clips' digest and the settings.

    An index of an encoder is kept by what its networks are: of a run that went on, it is another. A file that is damaged is made again.
    """
    from jaxgan.data.pipeline import data_root

    _check_features(clips, features)
    settings = (
        VERSION,
        clips.digest,
        "encoder" if features.startswith("encoder:") else features,
        neighbours,
        seed if features in ("random", "oracle") else 0,
        _networks_key(features, weights),
    )
    folder = os.path.join(data_root(root), "retrieval")
    file = os.path.join(folder, hashlib.sha256(repr(settings).encode()).hexdigest()[:24] + ".npz")
    frames = sum(clips.length(i) for i in range(len(clips)))
    kept = read_index(file, frames, neighbours)
    if kept is not None:
        return kept
    if frames >= 20_000:  # minutes, and once
        print(f"searching the neighbours of {frames:,} frames of {clips.name} by {features}, once", file=sys.stderr)
    index = build_index(clips, features, neighbours, seed, weights)
    try:
        save_index(file, index)
    except OSError as error:
        raise OSError(
            f"the index of neighbours cannot be kept in {folder}: {error}; make room or set --data.root or $JAXGAN_DATA"
        ) from error
    return index


def read_index(file: Any, frames: int, neighbours: int) -> Index | None:
    """The index that `save_index` has written, of so many frames and neighbours; None where there is none, or a damaged or another one.

    Raises OSError where it is there and cannot be read.
    """
    from etils import epath

    try:
        data = epath.Path(file).read_bytes()
    except FileNotFoundError:
        return None
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            index = Index(*(archive[name] for name in Index._fields))
    except Exception:  # whatever a damaged archive raises: it is only a copy
        return None
    whole = all(array.shape == (frames, neighbours) for array in index)
    return index if whole and index.neighbours.min() >= -1 and index.neighbours.max() < frames else None


def is_known(features: str) -> bool:
    """Whether frames can be described so."""
    return features in FEATURES or features.startswith("encoder:")


def _check_features(clips: Any, features: str) -> None:
    if not is_known(features):
        raise ValueError(f"features is {features!r}; frames are described by one of: {', '.join(FEATURES)}, encoder:WORKDIR")
    if features == "oracle" and clips.pose(0) is None:
        raise ValueError(f"features 'oracle' compares true poses, and those of {clips.name} are not known; use 'hog'")


def _describer(
    clips: Any, features: str | Callable[[np.ndarray], np.ndarray], weights: str
) -> Callable[[np.ndarray, int], np.ndarray] | None:
    """``describe(frames of clip i, i) -> float32 [T, D]``, of length 1 where cosines are compared; None for 'random'."""
    if not callable(features):
        _check_features(clips, features)
    if features == "random":
        return None
    if features == "oracle":
        every = pose_vectors(np.concatenate([clips.pose(i) for i in range(len(clips))]), clips.pose_names)
        starts = np.concatenate([[0], np.cumsum([clips.length(i) for i in range(len(clips))])])
        return lambda frames, i: every[starts[i] : starts[i + 1]]
    if callable(features):
        describe = features
    elif features == "convnet":
        describe = convnet(weights)
    elif features.startswith("encoder:"):
        describe = encoder(features.partition(":")[2])
    else:
        describe = {"hog": hog, "rgb": rgb, "luminance": luminance}[features]

    def unit(frames: np.ndarray, i: int) -> np.ndarray:
        found = describe(frames).astype(np.float32)
        return found / np.maximum(np.sqrt(np.square(found).sum(-1, keepdims=True)), np.float32(1e-12))

    return unit


def _networks_key(features: str, path: str) -> str:
    """Of the networks that describe frames; '' where none does."""
    if features.startswith("encoder:"):
        from jaxgan.generators import digest, open_generator

        return digest(open_generator(features.partition(":")[2]))
    if features != "convnet":
        return ""
    from jaxgan import weights

    return weights.about("vgg16", path or None)["sha256"]


def _empty(shape: tuple[int, int], scratch: str) -> np.ndarray:
    if 4 * shape[0] * shape[1] <= MEMORY_BYTES:
        return np.empty(shape, np.float32)
    return np.memmap(os.path.join(scratch, "vectors"), np.float32, "w+", shape=shape)


def _intersections(colours: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Sum of the smaller shares of each frame [n, 512] and its neighbours [n, K], without the ground's colours: float32 [n, K]."""
    common = colours.mean(0, dtype=np.float64) > COMMON
    result = np.zeros(neighbours.shape, np.float32)

    def shares(rows: np.ndarray) -> np.ndarray:
        rows = np.where(common, 0, rows).astype(np.float32)
        return rows / np.maximum(rows.sum(-1, keepdims=True), np.float32(1e-6))

    for start in range(0, len(neighbours), 256):
        block = slice(start, start + 256)
        here, there = shares(colours[block]), shares(colours[np.maximum(neighbours[block], 0)])
        result[block] = np.minimum(here[:, None], there).sum(-1)
    return np.where(neighbours >= 0, result, 0).astype(np.float32)
