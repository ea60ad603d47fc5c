"""Rows of numbers from images: features of a network, or class areas of a segmenter.

One row for each image, computed in batches that lie over this process's devices, each process its own share of the images, the sums merged
at the end. Rows depend on the image alone, so any number of devices and processes and any interruption give the same rows; with a cache
folder an interrupted pass goes on at the last whole chunk.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxgan import parallel, sources
from jaxgan.arrays import arrays_checksum
from jaxgan.metrics import streaming
from jaxgan.metrics.streaming import Moments, Rows, Sums

CHUNK = 256
"""Images of one file of a cache, and the unit in which processes share a source."""
FORM = 1
"""Raised where rows that older code kept must not be read."""


class Measure(NamedTuple):
    """What makes a row of each image."""

    name: str
    columns: int
    prepare: Callable[[np.ndarray], np.ndarray]
    """On the host, in threads: one image, uint8 [H, W, 3] -> an array of one shape for all images."""
    compute: Callable[[np.ndarray], Any]
    """[B, ...] -> [B, columns], always for the same B; may return before the device is done."""
    protocol: dict[str, Any]
    """What the rows depend on beside the images, as JSON values."""
    dtype: Any = np.float32
    """Of the rows."""


def network_measure(
    name: str,
    columns: int,
    apply: Callable[[Any, jax.Array], jax.Array],
    params: Any,
    prepare: Callable[[np.ndarray], np.ndarray],
    protocol: dict[str, Any],
) -> Measure:
    """A measure by a network: ``apply(params, [B, ...]) -> [B, columns]``, a pure function, runs on all devices of this process."""

    @functools.cache
    def placed() -> tuple[Any, NamedSharding, Any]:
        mesh = parallel.make_mesh((0, 1), jax.local_devices())
        return mesh, NamedSharding(mesh, PartitionSpec("data")), parallel.replicate(params, mesh)

    program = jax.jit(apply)

    def compute(batch: np.ndarray) -> jax.Array:
        mesh, split, there = placed()
        wanted = -(-len(batch) // mesh.size) * mesh.size
        batch = np.pad(batch, ((0, wanted - len(batch)), *((0, 0),) * (batch.ndim - 1)))
        with jax.set_mesh(mesh):
            return program(there, jax.device_put(batch, split))

    return Measure(name, columns, prepare, compute, {"features": name, **protocol})


def inception(resize: str = "clean", path: Any = None) -> Measure:
    """The 2048 pooled features of the Inception network of 2015 that FID, KID and precision/recall are computed on.

    Args:
      resize: how images come to 299x299, see ``jaxgan.nets.inception.resize_for_inception``; scores of different modes do not compare.
      path: of a file with the weights; default where `jaxgan weights` finds them.

    Raises:
      ValueError: an unknown mode, or a wrong file. FileNotFoundError: the weights are not on this machine; says how to get them.
    """
    from jaxgan import weights
    from jaxgan.nets import inception as network

    if resize not in network.RESIZES:
        raise ValueError(f"resize is {resize!r}; use one of {', '.join(network.RESIZES)}")
    arrays = weights.load("inception", path)
    protocol = {"resize": resize, "weights": arrays_checksum(arrays)}
    prepare = functools.partial(network.resize_for_inception, mode=resize)
    return network_measure("inception-2015-12-05", network.FEATURES, network.features, network.params(arrays), prepare, protocol)


def collect(images: sources.Images, measure: Measure, *, rows: bool = True, batch: int = 32, cache: Any = None, title: str = "") -> Sums:
    """The sums of all images of a source, of all processes: equal in every process, however many there are.

    Args:
      images: at least one.
      rows: ``streaming.Rows``, one for each image; False: ``streaming.Moments`` alone, whose size does not depend on the images.
      batch: images computed at once, on all devices of this process together.
      cache: folder in which rows are kept in chunks under the content of images and measure; None: nothing is kept.
      title: shows a progress bar under this name.
    """
    kind = Rows if rows else Moments
    sums = Rows.zero(measure.columns, measure.dtype) if rows else Moments.zero(measure.columns)
    for index, part in chunks(images, measure, batch=batch, cache=cache, title=title):
        sums = Rows.add(sums, index, part) if rows else Moments.add(sums, part)
    return functools.reduce(kind.merge, gather(sums))


def chunks(
    images: sources.Images, measure: Measure, *, batch: int = 32, cache: Any = None, title: str = ""
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(positions int64 [n], rows [n, columns]) of this process's share, a chunk at a time; those that are kept come first."""
    if batch < 1:
        raise ValueError(f"batch is {batch}, but must be at least 1")
    folder = _cache_folder(images, measure, cache)
    missing = []
    for part in share(len(images), jax.process_index(), jax.process_count()):
        kept = _kept(folder, part, measure)
        if kept is None:
            missing.append(part)
        else:
            yield kept
    title = title if parallel.is_main() else ""
    ready = _computed(images, measure, [i for part in missing for i in part], batch, title)
    waiting: list[np.ndarray] = []
    for part in missing:
        while sum(map(len, waiting)) < len(part):
            waiting.append(next(ready))
        whole = np.concatenate(waiting)
        waiting = [whole[len(part) :]]
        index, rows = np.asarray(part, np.int64), whole[: len(part)]
        if folder is not None:
            streaming.save(_file(folder, part), Rows.add(Rows.zero(measure.columns, measure.dtype), index, rows), measure.protocol)
        yield index, rows
    for _ in ready:  # nothing is left; this ends its threads and its bar
        pass


def share(n: int, process: int, processes: int) -> list[range]:
    """The chunks of 0 .. n - 1 that fall to one process: consecutive ones, on one grid wherever each process gets ``CHUNK`` or more."""
    size = min(CHUNK, max(1, n // processes))
    grid = [range(start, min(start + size, n)) for start in range(0, n, size)]
    return grid[process * len(grid) // processes : (process + 1) * len(grid) // processes]


def gather(sums: Sums) -> list[Sums]:
    """The sums of every process, in the order of processes; bytes travel, for float64 would be rounded on its way through a device."""
    if jax.process_count() == 1:
        return [sums]
    from jax.experimental import multihost_utils
    from safetensors.numpy import load, save

    mine = np.frombuffer(save({name: np.asarray(array, order="C") for name, array in sums.items()}), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.asarray(len(mine), np.int32))).reshape(-1)
    padded = np.pad(mine, (0, int(lengths.max()) - len(mine)))
    everyone = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(lengths), -1)
    return [load(row[:length].tobytes()) for row, length in zip(everyone, lengths, strict=True)]


def _computed(images: sources.Images, measure: Measure, indices: Sequence[int], batch: int, title: str) -> Iterator[np.ndarray]:
    """Rows of these images in order. The next batch is given to the device before the rows of the last one are fetched."""
    flying: collections.deque = collections.deque()

    def land() -> np.ndarray:
        rows, count = flying.popleft()
        rows = np.asarray(jax.device_get(rows), measure.dtype)[:count]
        if rows.shape != (count, measure.columns):
            raise ValueError(f"{measure.name} made rows of shape {rows.shape} of {count} images; expected ({count}, {measure.columns})")
        return rows

    for index, array in sources.batches(images, measure.prepare, batch, indices=indices, title=title):
        if len(array) < batch:  # one compiled shape serves all
            array = np.concatenate([array, np.repeat(array[-1:], batch - len(array), 0)])
        flying.append((measure.compute(array), len(index)))
        if len(flying) > 1:
            yield land()
    while flying:
        yield land()


def _cache_folder(images: sources.Images, measure: Measure, cache: Any):
    from etils import epath

    if cache is None:
        return None
    key = hashlib.sha256(f"{FORM} {images.digest} {json.dumps(measure.protocol, sort_keys=True)}".encode()).hexdigest()
    return epath.Path(os.fspath(cache)).expanduser() / f"{measure.name}-{key[:24]}"


def _file(folder, part: range):
    return folder / f"{part.start:09d}-{part.stop:09d}.safetensors"


def _kept(folder, part: range, measure: Measure) -> tuple[np.ndarray, np.ndarray] | None:
    """A chunk of the cache, or None where it is not there, damaged, or of something else."""
    if folder is None or not _file(folder, part).exists():
        return None
    try:
        sums = streaming.load(_file(folder, part), measure.protocol).sums
        index, rows = Rows.positions(sums), Rows.read(sums)
    except (ValueError, OSError):
        return None
    return (index, rows) if np.array_equal(index, part) and rows.shape[1] == measure.columns else None


def default_cache() -> str:
    """Folder of kept rows: $XDG_CACHE_HOME or ~/.cache, jaxgan/features."""
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "jaxgan", "features")
