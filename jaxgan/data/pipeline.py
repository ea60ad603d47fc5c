"""From a named source to batches: random access, a seeded shuffle per epoch, one shard per process, an exact position to resume from."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator

import numpy as np

from jaxgan import configure

CACHE_BYTES = 1 << 30
"""Decoded images are kept in memory where the whole set takes at most this (50,000 of 64x64x3: 0.6 GB); later epochs decode nothing."""


def data_root(root: str = "") -> str:
    """Folder of prepared sets: `root`, else $JAXGAN_DATA, else the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.expanduser(root or os.environ.get("JAXGAN_DATA") or os.path.join(cache, "jaxgan", "data"))


PREFETCH_BYTES = 256 << 20
"""Batches are read ahead up to this, at least 2 and at most 8 of them."""


class ImageSource:
    """Random access to decoded images of one size: ``source[i] -> {'image': uint8 [H, W, C]}``, with `labels` also 'label': uint8 [H, W].

    `records`: something with `len` and `[i]` that gives a mapping with PNG or JPEG bytes under 'image' (and 'label').
    `frame`: what turns a decoded PIL image into uint8 [H, W, C]; default: the array as it is.
    """

    def __init__(self, records, image: tuple[int, int, int], *, labels: bool = False, frame: Callable | None = None, name: str = ""):
        self.records, self.image, self.labels, self.frame, self.name = records, tuple(image), labels, frame, name
        self._kept = self._kept_labels = self._have = None
        if len(records) * (int(np.prod(self.image)) + (self.image[0] * self.image[1] if labels else 0)) <= CACHE_BYTES:
            self._open_cache()

    def _open_cache(self) -> None:
        # Pages of an empty array cost nothing until an image is written to them.
        self._kept = np.empty((len(self.records), *self.image), np.uint8)
        self._kept_labels = np.empty((len(self.records), *self.image[:2]), np.uint8) if self.labels else None
        self._have = np.zeros(len(self.records), bool)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        index = int(index)
        if self._have is not None and self._have[index]:
            return {"image": self._kept[index], **({"label": self._kept_labels[index]} if self.labels else {})}
        try:
            record = self.records[index]
        except RuntimeError as error:  # array_record checks its blocks: a flipped, cut or missing file shows here, never as a wrong pixel
            remedy = "remove its folder and prepare or import it again"
            raise ValueError(f"the set {self.name} is damaged, image {index} cannot be read; {remedy} ({error})") from error
        found = {"image": self._decode(record["image"], index)}
        if self.labels:
            found["label"] = _pixels(record["label"])
        if self._kept is not None:
            self._kept[index] = found["image"]  # first the pixels, then the mark: a thread that reads in between decodes once more
            if self.labels:
                self._kept_labels[index] = found["label"]
            self._have[index] = True
        return found

    def _decode(self, data: bytes, index: int) -> np.ndarray:
        from PIL import Image

        if self.frame is None:
            pixels = _pixels(data)
            pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        else:
            pixels = self.frame(Image.open(io.BytesIO(data)))
        if pixels.shape != self.image:
            raise ValueError(f"{self.name}: image {index} is {_by(pixels.shape)} in a set of {_by(self.image)}; prepare it again")
        return pixels

    def __getstate__(self) -> dict:
        # A worker process fills its own cache.
        return {**self.__dict__, "_kept": None, "_kept_labels": None, "_have": self._have is not None}

    def __setstate__(self, state: dict) -> None:
        cached = state.pop("_have")
        self.__dict__.update(state, _have=None)
        if cached:
            self._open_cache()

    def __repr__(self) -> str:
        return f"ImageSource({self.name!r}, {len(self)} images of {_by(self.image)})"


def _pixels(data: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)))


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def open_source(data: configure.Data, image: tuple[int, int, int], *, labels: bool = False) -> ImageSource:
    """The images that `data` names, at `image` = (H, W, C).

    'scenes' draws its set on first use; 'tfds:NAME[/CONFIG]' reads a prepared catalogue set, cropped and resized; anything else is a folder
    that `jaxgan data import` made, which must hold images of exactly this size. `labels`: deliver label maps too, where the source has
    them. Raises ValueError or FileNotFoundError with the remedy.
    """
    height, width, _ = image
    if data.without and data.source != "scenes":
        raise ValueError(f"data.without is {' '.join(data.without)}: only scenes are drawn without a class; leave it out for {data.source}")
    if data.source == "scenes":
        check_scenes(data, image)
        from jaxgan.data import builders

        root = data_root(data.root)
        folder = builders.prepare_scenes(root, height, width, periodic=data.periodic, count=data.count, without=data.without)
        return read_folder(folder, image, data.split, labels=labels, name=f"scenes/{folder.parent.name}")
    if data.source.startswith("tfds:"):
        from jaxgan.data import catalogue

        return catalogue.open_catalogue(data, image)
    return read_folder(data.source, image, data.split, labels=labels, name=data.source)


def open_labelled(data: configure.Data, image: tuple[int, int, int]) -> ImageSource:
    """`open_source` with label maps; ValueError with the remedy where the source has none."""
    source = open_source(data, image, labels=True)
    if not source.labels:
        remedy = "use 'scenes', or import pairs with `jaxgan data import IMAGES OUT --labels MAPS`"
        raise ValueError(f"data source {data.source!r} has no label maps, and the model learns from them; {remedy}")
    return source


def check_scenes(data: configure.Data, image: tuple[int, int, int]) -> None:
    """Raises ValueError where `scenes` cannot be drawn as `data` and `image` = (H, W, C) ask."""
    from jaxgan.data.scenes import check_size, withheld

    height, width, channels = image
    if channels != 3:
        raise ValueError(f"scenes have 3 channels, the model wants {channels}; set the model's channels to 3 or import your own images")
    if data.count < 1:
        raise ValueError(f"scenes: count is {data.count}, but a set has at least 1 image; use --data.count 50000")
    check_size(height, width)
    withheld(data.without)


def read_folder(folder, image: tuple[int, int, int], split: str, *, labels: bool = False, name: str = "") -> ImageSource:
    """One split of a set on disk in TFDS's array_record layout, whose images are exactly `image` = (H, W, C)."""
    from etils import epath

    folder = epath.Path(folder).expanduser()
    if not (folder / "dataset_info.json").exists():
        what = "is not a folder" if not folder.is_dir() else "was not made by `jaxgan data import`"
        remedy = f"use 'scenes', 'tfds:NAME', or `jaxgan data import IMAGES {os.fspath(folder)}`"
        raise FileNotFoundError(f"data source {os.fspath(folder)!r} {what}; {remedy}")
    from jaxgan.data import builders

    builder = builders.tfds.builder_from_directory(folder)
    features = builder.info.features
    if "image" not in features:
        raise ValueError(f"{os.fspath(folder)} holds {', '.join(features)} but no 'image'")
    found = tuple(features["image"].shape)
    if found != tuple(image):
        raise ValueError(
            f"{os.fspath(folder)} holds images of {_by(found)}, the model wants {_by(image)} (height x width x channels); "
            f"import the images again with --size {image[0]} {image[1]} --channels {image[2]}, or change the model's size"
        )
    labels = labels and "label" in features
    source = ImageSource(open_records(builder, split), image, labels=labels, name=name)
    source[0], source[len(source) - 1]  # a cut or missing file is found now, not in the first epoch
    return source


def open_records(builder, split: str):
    """TFDS's data source of one split, with every Image feature left as encoded bytes. Raises ValueError for a split that is not there."""
    from jaxgan.data import builders

    splits = {name: info.num_examples for name, info in builder.info.splits.items()}
    if split.split("[")[0] not in splits or not splits[split.split("[")[0]]:
        there = ", ".join(f"{name} ({count:,})" for name, count in splits.items() if count)
        raise ValueError(f"there is no split {split!r} in {os.fspath(builder.data_path)}; it has: {there}")
    images = [name for name, feature in builder.info.features.items() if isinstance(feature, builders.tfds.features.Image)]
    with builders.quiet():
        return builder.as_data_source(split=split, decoders={name: builders.tfds.decode.SkipDecoding() for name in images})


def batches(
    source,
    *,
    batch: int,
    records: int,
    prepare: Callable[[dict[str, np.ndarray], np.random.Generator], dict[str, np.ndarray]],
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
):
    """An endless iterator of `prepare`'s dicts for this process: ``batch // process_count`` samples each, `records` images read per sample.

    Each epoch is another permutation of the source; process p reads every `process_count`-th image of it, so shards are disjoint and cover
    the source. A source with a method ``draw(i, rng)`` is asked for that in the place of ``source[i]``, with another generator in every
    epoch; `prepare` has one of its own for every batch and process. ``get_state()`` and ``set_state(state)`` name the exact position; the
    state depends on `workers`. Raises ValueError where batch, processes and images do not fit each other.
    """
    import grain

    if batch < 1 or records < 1 or batch % process_count:
        raise ValueError(f"a batch of {batch} does not divide over {process_count} processes; use a multiple of {process_count}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}, but must be at least 0 and below 2**32")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process {process_index} of {process_count} does not exist")
    if len(source) < process_count:
        raise ValueError(f"{len(source)} images do not reach {process_count} processes; use a larger set or fewer processes")
    local = batch // process_count * records
    # The order must be the same in all processes and what is drawn different in each: hence a second seed, after the slice.
    own = int(np.random.SeedSequence((seed, process_index, process_count)).generate_state(1)[0])
    draws = hasattr(source, "draw")
    records_of = grain.MapDataset.range(len(source)) if draws else grain.MapDataset.source(source)
    images = records_of.seed(seed).shuffle()[process_index::process_count].repeat()
    if draws:
        images = images.seed(own).random_map(source.draw)
    samples = images.batch(local, drop_remainder=True).seed(own).random_map(prepare)
    ahead = PREFETCH_BYTES // (local * int(np.prod(getattr(source, "image", (1,)))))
    # Two threads hide the reading; more only contend for the interpreter.
    threads = grain.ReadOptions(num_threads=2, prefetch_buffer_size=min(max(ahead, 2), 8))
    flow = samples.to_iter_dataset(threads)
    if workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # grain reads a flag of its own on the way to its workers; nobody here passes any
            flags.FLAGS.mark_as_parsed()
        flow = flow.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
    return iter(flow)


def sample_numbers(count: int, first: int = 0) -> dict[str, np.ndarray]:
    """What ``prepare`` is given where a run reads no data: {'sample': int32 [count]}, the numbers of samples in their batch."""
    return {"sample": np.arange(first, first + count, dtype=np.int32)}


class SampleNumbers:
    """The batches of a run that reads no data, with the protocol of what `batches` gives: endless, and resumed exactly.

    ``prepare`` is given this process's `sample_numbers` and a random generator of its own for every batch and process.
    """

    def __init__(self, *, batch: int, prepare: Callable, seed: int, process_index: int = 0, process_count: int = 1):
        if batch < 1 or batch % process_count:
            raise ValueError(f"a batch of {batch} does not divide over {process_count} processes; use a multiple of {process_count}")
        self._share, self._prepare, self._number = batch // process_count, prepare, 0
        self._seed, self._index, self._count = seed, process_index, process_count

    def __iter__(self) -> SampleNumbers:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((self._seed, self._index, self._count, self._number))
        self._number += 1
        return self._prepare(sample_numbers(self._share, self._index * self._share), rng)

    def get_state(self) -> dict[str, int]:
        return {"batches": self._number}

    def set_state(self, state: dict[str, int]) -> None:
        self._number = state["batches"]

    def close(self) -> None:
        """Holds nothing open."""


def one_pass(source, batch: int) -> Iterator[np.ndarray]:
    """Every image once, in order, as uint8 [batch, H, W, C]; the last block is shorter where `batch` does not divide the source."""
    for start in range(0, len(source), batch):
        yield np.stack([source[i]["image"] for i in range(start, min(start + batch, len(source)))])


def preview(source, n: int) -> np.ndarray:
    """The same n images (or all, if fewer) every time, spread over the source: uint8 [n, H, W, C], of samples [n, k, H, W, C].

    One from each n-th of the source, from a place by chance: where identities come in turn, equal steps could meet the same two throughout.
    """
    n = min(n, len(source))
    edges = np.arange(n + 1) * len(source) // max(n, 1)
    return np.stack([source[int(i)]["image"] for i in np.random.default_rng(0).integers(edges[:-1], edges[1:])])


def side_by_side(images: np.ndarray) -> np.ndarray:
    """The k images of each sample in a row: [n, k, H, W, C] -> [n, H, k W, C]; [n, H, W, C] as it is."""
    if images.ndim == 4:
        return images
    n, k, height, width, channels = images.shape
    return np.moveaxis(images, 1, 2).reshape(n, height, k * width, channels)
