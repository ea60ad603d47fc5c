"""Images by a word on the command line: a folder of files, an imported or catalogue set, drawn scenes, or what a trained generator makes.

Metrics and segmenters read all of them alike: a length, image `i` at its own size, a name, a label map where there is one, and a digest of
the content under which features and tallies are cached.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgan import configure
from jaxgan.data import pipeline
from jaxgan.metrics.segments import subset_order
from jaxgan.progress import bar

ACCEPTED = (
    "a folder of PNG, JPEG or WebP files, a folder that `jaxgan data import` made, a workdir of `jaxgan train`, a generator folder "
    "(generator.json), scenes or scenes:HEIGHTxWIDTH, or a prepared catalogue set (tfds:NAME)"
)

STORED = "8 bits as stored"


class Content(NamedTuple):
    """What a kind of source must say of itself; image numbers are those of the whole source."""

    names: Sequence[str]
    """One for each image: a file's path below the folder, or the image's number."""
    read: Callable[[int], np.ndarray]
    """Image i as uint8 [H, W, 3]; may be called from several threads."""
    digest: Callable[[Sequence[int]], str]
    """sha256 over the content of these images in this order."""
    label: Callable[[int], np.ndarray] | None = None
    """Label map i as int32 [H, W]."""
    classes: tuple[str, ...] = ()
    """Names of the labels, where they are known; one more, 'void', where unknown pixels have a number outside the classes."""


class Images:
    """Some images of a source, in a fixed order."""

    def __init__(self, spec: str, content: Content, chosen: Sequence[int], facts: dict[str, Any]):
        self.spec = spec
        """As the user wrote it."""
        self.facts = facts
        """What a protocol says of the source: kind, split, seed and, for drawn images, how they become uint8."""
        self._content, self._chosen = content, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, i: int) -> np.ndarray:
        """Image i, uint8 [H, W, 3] at its own size. Raises ValueError naming a file that cannot be read."""
        return self._content.read(self._at(i))

    def label(self, i: int) -> np.ndarray | None:
        """Label map of image i, int32 [H, W], or None where the source has none."""
        return self._content.label(self._at(i)) if self._content.label else None

    def name(self, i: int) -> str:
        """Path below the folder, or the image's number."""
        return self._content.names[self._at(i)]

    @property
    def has_labels(self) -> bool:
        return self._content.label is not None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, where they are known, else ()."""
        return self._content.classes

    @functools.cached_property
    def digest(self) -> str:
        """sha256 (64 hexadecimal digits) over the content of these images in this order; reads all of them the first time."""
        return self._content.digest(self._chosen)

    def label_maps(self) -> Images:
        """The label maps in the place of the images: int32 [H, W]. ValueError where the source has none."""
        if self._content.label is None:
            raise ValueError(f"{self.spec} has no label maps; use scenes or a set imported with labels")
        return Images(self.spec, self._content._replace(read=self._content.label), self._chosen, self.facts)

    def take(self, indices: Sequence[int], **facts: Any) -> Images:
        """Only these, in this order; `facts` are added to the source's own."""
        return Images(self.spec, self._content, [self._at(i) for i in indices], {**self.facts, **facts})

    def _at(self, i: int) -> int:
        if not 0 <= i < len(self._chosen):
            raise IndexError(f"image {i} of {len(self._chosen)} ({self.spec})")
        return int(self._chosen[i])

    def __repr__(self) -> str:
        return f"Images({self.spec!r}, {len(self)} images)"


def open_images(spec, *, split: str | None = None, n: int | None = None, seed: int | None = None, least: int = 1) -> Images:
    """The images that `spec` names.

    Args:
      spec: one of `ACCEPTED`. scenes are 64x64 unless a size is given.
      split: 'train' (default) or another one of an imported or catalogue set, or of scenes.
      n: so many of them; default all (a generator: 10,000; scenes: 50,000 and 5,000 held out).
      seed: of a generator's latents (default 1). Elsewhere it matters where n is given: None takes the first n, and a number the first
        n after ``random.Random(seed).shuffle``, the selection of the published segmentation statistics.
      least: fewer images than this are an error.

    Raises:
      FileNotFoundError: there is no such source. ValueError: it is of another kind, holds too few images, or lacks the split.
    """
    spec = os.fspath(spec)
    if n is not None and n < 1:
        raise ValueError(f"n is {n}; at least 1 image is needed")
    if spec == "scenes" or spec.startswith("scenes:"):
        content, facts = _scenes(spec, split or "train")
    elif spec.startswith("tfds:"):
        content, facts = _catalogue(spec, split or "train")
    else:
        found = _on_disk(spec, split, n, seed)
        if isinstance(found, Images):
            return _enough(found, least)
        content, facts = found
    images = Images(spec, content, range(len(content.names)), facts)
    return _enough(images if n is None else selected(images, n, seed), least)


def selected(images: Images, n: int, seed: int | None) -> Images:
    """`n` of the images, as ``open_images`` chooses them. ValueError: fewer than 1, or more than there are."""
    if n < 1:
        raise ValueError(f"n is {n}; at least 1 image is needed")
    if n > len(images):
        raise ValueError(f"{images.spec} holds {len(images):,} images, fewer than n = {n:,}; use n = {len(images)} or leave it out")
    if seed is None:
        return images.take(range(n), selection="first")
    return images.take(subset_order(len(images), n, seed), selection=f"shuffled by seed {seed}")


def in_memory(images: np.ndarray, spec: str = "arrays") -> Images:
    """uint8 images [n, H, W, 3] of an array, or of a list of arrays of several sizes; reading another dtype or shape raises ValueError."""

    def read(i: int) -> np.ndarray:
        image = images[i]
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:  # floats in [-1, 1] would pass for nearly black ones
            remedy = "convert it first (floats in [-1, 1]: jaxgan.generators.quantise; grey: repeat the channel)"
            raise ValueError(f"image {i} of {spec} is {image.dtype} {list(image.shape)}, but must be uint8 [H, W, 3]; {remedy}")
        return image

    def digest(chosen: Sequence[int]) -> str:
        whole = hashlib.sha256()
        for i in chosen:
            whole.update(f"{images[i].shape}".encode() + np.ascontiguousarray(images[i]).tobytes())
        return whole.hexdigest()

    content = Content(_Names(len(images)), read, digest)
    return Images(spec, content, range(len(images)), {"kind": "arrays", "quantise": STORED})


def _enough(images: Images, least: int) -> Images:
    if len(images) < least:
        raise ValueError(f"{images.spec} holds {len(images)} image{'s' * (len(images) != 1)}; at least {least} are needed")
    return images


def _on_disk(spec: str, split: str | None, n: int | None, seed: int | None):
    from etils import epath

    folder = epath.Path(spec).expanduser()
    if not folder.exists():
        if re.fullmatch(r"[a-z0-9_]+(/[A-Za-z0-9_.\-]+)?", spec):  # the bare name of a catalogue set
            try:
                return _catalogue(f"tfds:{spec}", split or "train")
            except FileNotFoundError:
                pass
        raise FileNotFoundError(f"{spec!r} does not exist; give {ACCEPTED}")
    if not folder.is_dir():
        kind = f"a {folder.suffix} file" if folder.suffix else "a file"
        raise ValueError(f"{spec!r} is {kind}, not a source of images; give {ACCEPTED}")
    if (folder / "generator.json").exists() or ((folder / "config.json").exists() and (folder / "checkpoints").exists()):
        _no_split(spec, split, "a generator's images")
        return _generated(spec, folder, 10_000 if n is None else n, 1 if seed is None else seed)
    if (folder / "dataset_info.json").exists():
        from jaxgan.data import builders

        return _records(spec, builders.tfds.builder_from_directory(folder), split or "train", folder / "facts.json")
    _no_split(spec, split, "a plain folder's images")
    return _files(spec, folder)


def _no_split(spec: str, split: str | None, what: str) -> None:
    if split is not None:
        raise ValueError(f"{spec}: split {split!r} was asked for, but {what} have no splits; leave it out")


def _files(spec: str, folder) -> tuple[Content, dict[str, Any]]:
    from jaxgan.data import folders

    names = folders.image_files(folder)
    if not names:
        raise ValueError(f"{spec} holds no image: no file below it ends in {', '.join(folders.SUFFIXES)}")
    names.sort(key=lambda name: (name.split("/")[:-1], name))  # a folder's own files, then its subfolders, as a sorted walk goes

    def read(i: int) -> np.ndarray:
        try:
            return folders.read_whole(folder / names[i])
        except folders.Rejected as error:
            remedy = f"move it away, or let `jaxgan data import {spec}` list all such files"
            raise ValueError(f"{folder / names[i]}: {error}; {remedy}") from error

    def digest(chosen: Sequence[int]) -> str:
        whole = hashlib.sha256()
        for i in chosen:
            content = hashlib.sha256((folder / names[i]).read_bytes()).digest()
            whole.update(os.fsencode(names[i]) + b"\0" + content)
        return whole.hexdigest()

    return Content(names, read, digest), {"kind": "folder", "quantise": STORED}


def _records(spec: str, builder, split: str, facts_file=None) -> tuple[Content, dict[str, Any]]:
    """A set in TFDS's layout: an imported one, or one of the catalogue; its images at the size at which they are stored."""
    features = builder.info.features
    if "image" not in features:
        raise ValueError(f"{spec} holds {', '.join(features)} but no 'image'")
    records = pipeline.open_records(builder, split)

    def pixels(i: int, name: str) -> np.ndarray:
        from PIL import Image

        from jaxgan.data import folders

        try:
            image = Image.open(io.BytesIO(records[i][name]))
            image.load()
        except (RuntimeError, OSError, SyntaxError) as error:  # array_record checks its blocks
            raise ValueError(f"the set {spec} is damaged, image {i} cannot be read; import or prepare it again ({error})") from error
        return np.asarray(image) if name != "image" else np.asarray(folders.to_mode(image, 3, "white"))

    def digest(chosen: Sequence[int]) -> str:
        whole = hashlib.sha256()
        for i in chosen:
            record = records[int(i)]
            for name in ("image", "label") if labels else ("image",):
                whole.update(hashlib.sha256(record[name]).digest())
        return whole.hexdigest()

    labels = "label" in features and hasattr(features["label"], "encoding_format")  # a map; catalogue sets may have one number instead
    names = _Names(len(records))
    if "file" in features:
        names = _Names(len(records), lambda i: records[i]["file"].decode("utf-8", "surrogateescape"))
    classes: tuple[str, ...] = ()
    void = None
    if labels and facts_file is not None and facts_file.exists():
        facts = json.loads(facts_file.read_text())
        classes, void = tuple(facts.get("classes", ())), facts.get("void")
        if void is not None and void >= len(classes):
            classes = (*classes, "void" if "void" not in classes else f"void {void}")
    if labels and builder.name == "scenes":
        from jaxgan.data.scenes import CLASSES

        classes = CLASSES

    def label(i: int) -> np.ndarray:
        found = pixels(i, "label").astype(np.int32)
        # A void number outside the classes (255) comes right after them, so that labels count from 0 without a gap.
        return found if void is None else np.where(found == void, np.int32(min(void, len(classes) - 1)), found)

    content = Content(names, lambda i: pixels(i, "image"), digest, label if labels else None, classes)
    return content, {"kind": "set", "split": split, "quantise": STORED}


class _Names(Sequence):
    """Names that are made when they are asked for; default '000000', '000001', ..."""

    def __init__(self, count: int, name: Callable[[int], str] = "{:06d}".format):
        self._count, self._name = count, name

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i):
        return self._name(int(i))


def _catalogue(spec: str, split: str) -> tuple[Content, dict[str, Any]]:
    from jaxgan.data import catalogue

    return _records(spec, catalogue.open_builder(configure.Data(source=spec)), split)


def _scenes(spec: str, split: str) -> tuple[Content, dict[str, Any]]:
    """Drawn one by one when they are read, so that nothing is prepared for a few thousand of them."""
    from jaxgan.data import builders, canvas, scene_classes, scenes

    found = re.fullmatch(r"scenes(?::(\d+)(?:x(\d+))?)?(?::without=([a-z,]+))?", spec)
    if not found:
        examples = "for instance scenes:128x256; classes are left out as in scenes:32:without=boat,car"
        raise ValueError(f"{spec!r}: write scenes, scenes:SIZE or scenes:HEIGHTxWIDTH, {examples}")
    height = int(found[1] or 64)
    width = int(found[2] or height)
    without = scene_classes.without_words(found[3].split(",") if found[3] else ())
    scenes.check_size(height, width)
    count = configure.Data().count
    splits = {"train": (count, 0), "test": (builders.test_count(count), builders.TEST_SEED)}
    if split not in splits:
        raise ValueError(f"there is no split {split!r} in scenes; use train or test")
    count, world = splits[split]

    @functools.lru_cache(256)
    def draw(i: int) -> tuple[np.ndarray, np.ndarray]:
        return scenes.draw_scene(i, height, width, seed=world, without=without)

    def digest(chosen: Sequence[int]) -> str:
        whole = hashlib.sha256(" ".join(map(str, ("scenes", height, width, world, *without))).encode())
        for module in (scenes, scene_classes, canvas):  # the drawing code is the content
            with open(module.__file__, "rb") as file:
                whole.update(file.read())
        whole.update(np.asarray(chosen, np.int64).tobytes())
        return whole.hexdigest()

    content = Content(_Names(count), lambda i: draw(i)[0], digest, lambda i: draw(i)[1].astype(np.int32), scenes.CLASSES)
    facts = {"kind": "scenes", "split": split, "size": [height, width], "quantise": STORED}
    return content, {**facts, "without": list(without)} if without else facts


def _generated(spec: str, folder, n: int, seed: int) -> Images:
    from jaxgan.generators import DRAWN_AT_ONCE, Blocks, digest, drawing, open_generator

    generator = open_generator(folder)
    facts = {"kind": "generator", "family": generator.family, "seed": seed, "quantise": "round((x + 1) * 127.5)"}
    if generator.step is not None:
        facts["step"] = generator.step
    if hasattr(generator.config, "micro"):  # images made by parts
        facts["patch"] = list(generator.config.micro)
    draw = functools.cache(lambda: drawing(generator))  # nothing touches a device before the first image is read
    read = Blocks(lambda block: draw()(seed, block), DRAWN_AT_ONCE)

    def content_digest(chosen: Sequence[int]) -> str:
        return hashlib.sha256(f"{digest(generator)} {seed} {DRAWN_AT_ONCE}".encode() + np.asarray(chosen, np.int64).tobytes()).hexdigest()

    return Images(spec, Content(_Names(n), read, content_digest), range(n), facts)


def batches(
    images: Images,
    prepare: Callable[[np.ndarray], np.ndarray] | None,
    batch: int,
    *,
    indices: Sequence[int] | None = None,
    title: str = "",
    threads: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(index int64 [n], array [n, ...]) of at most `batch` images at a time, in order, read and prepared by threads ahead of the reader.

    Args:
      prepare: makes an array of one shape of each uint8 [H, W, 3]; None: the images as they are, all of one size.
      indices: only these positions; default all.
      title: shows a progress bar under this name on a terminal.
    """
    from concurrent.futures import ThreadPoolExecutor

    indices = range(len(images)) if indices is None else indices
    if batch < 1:
        raise ValueError(f"batch is {batch}, but must be at least 1")

    def make(i: int) -> np.ndarray:
        return images[i] if prepare is None else prepare(images[i])

    threads = threads or min(os.cpu_count() or 1, 16)
    waiting = iter(indices)
    ahead: collections.deque = collections.deque()
    with ThreadPoolExecutor(threads) as pool, bar(title, len(indices)) as advance:
        try:
            for start in range(0, len(indices), batch):
                part = indices[start : start + batch]
                while len(ahead) < len(part) + 4 * threads:
                    following = next(waiting, None)
                    if following is None:
                        break
                    ahead.append(pool.submit(make, following))
                arrays = [ahead.popleft().result() for _ in part]
                if len({array.shape for array in arrays}) > 1:
                    sizes = sorted({"x".join(map(str, array.shape)) for array in arrays})
                    raise ValueError(f"{images.spec} holds images of several sizes ({', '.join(sizes[:4])}); import it at one size first")
                yield np.asarray(part, np.int64), np.stack(arrays)
                advance(len(part))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
