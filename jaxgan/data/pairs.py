"""A folder of images and a folder of label maps become one dataset: each image beside the map of its name, whole or not at all.

Label maps are PNG files whose pixels are class numbers (grey or palette); they are only ever resized by repetition of pixels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import time
from collections.abc import Iterator, Sequence

import numpy as np

from jaxgan.data import folders
from jaxgan.data.folders import MAX_BYTES, Rejected, Settings
from jaxgan.data.framing import frame

SPLITS = ("train", "validation", "test")
"""Subfolders of these names, in the folder of images, are the splits."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What an import of pairs did."""

    folder: str
    counts: dict[str, int]
    """Pairs by split."""
    size: tuple[int, int, int]
    """(H, W, C)."""
    classes: tuple[str, ...]
    """Name of each class number; without a file of names 'class 0', 'class 1', ... up to the highest that occurs."""
    void: int | None
    """The label of pixels whose class is not known."""
    pixels: dict[str, list[int]]
    """By split: pixels of each class."""
    frequency: list[float]
    """Of each class in the split 'train': its pixels over all pixels of the images that hold it (0 where none does)."""
    checksum: str
    """SHA-256 over the pixels of image and label map of all pairs, in order of split and path."""
    rejects: dict[str, str]
    """Reason by file: images relative to the folder of images, label maps as 'labels: PATH'."""
    seconds: float


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two files that belong together."""

    image: str
    label: str
    split: str


def import_pairs(
    source_dir,
    out_dir,
    labels_dir,
    *,
    size: tuple[int, int],
    crop: str = "center",
    filter: str = "lanczos",
    channels: int = 3,
    alpha: str = "white",
    upscale: bool = False,
    max_pixels: int = 64_000_000,
    test_share: float = 0.0,
    classes: Sequence[str] = (),
    void: int | None = None,
) -> Report:
    """Imports every image below `source_dir` with the label map of the same path and stem below `labels_dir` into a new folder `out_dir`.

    Images are read as by `folders.import_folder`, and the label map is cut at the same place. Where `source_dir` has subfolders 'train' and
    'validation' or 'test', these are the splits; otherwise `test_share` of the pairs, by a hash of the image's path, goes to 'test'.

    Args:
      classes: names of the class numbers 0, 1, ...; other numbers than these and `void` are rejected. Empty: any number is taken.
      void: the number of pixels whose class is not known, in 0..255; it may have a name among `classes` or not.

    Rejected with a reason: an image without a label map or the other way round, two images of one stem, maps of another size than their
    image, of another format than PNG, or with other numbers, images that their EXIF turns, and what `import_folder` rejects.

    Raises FileNotFoundError, FileExistsError, ValueError (nothing to import, or a wrong setting) and OSError (no room); then nothing is
    left under the name `out_dir`.
    """
    from etils import epath

    settings = Settings(tuple(size), crop, filter, channels, alpha, upscale, max_pixels, test_share)
    folders.check(settings)
    classes = _check_classes(classes, void)
    source, labels, out = (epath.Path(path).expanduser() for path in (source_dir, labels_dir, out_dir))
    for what, folder in (("images", source), ("label maps", labels)):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {os.fspath(folder)!r} to import {what} from")
    if out.exists():
        raise FileExistsError(f"{os.fspath(out)!r} exists already; name a new folder or remove that one first")
    rejects: dict[str, str] = {}
    pairs = match(source, labels, test_share, rejects)
    total = len(pairs) + len(rejects)
    if not pairs:
        folders.print_rejects(rejects, total)
        raise ValueError(f"no image below {os.fspath(source)!r} has a label map of its name below {os.fspath(labels)!r}")
    splits = {split: found for split in SPLITS if (found := [pair for pair in pairs if pair.split == split])}

    started = time.monotonic()
    with folders.building(out, rejects, total) as partial:
        tallies = {split: Tally() for split in splits}
        digest = hashlib.sha256()
        made = _write(partial, source, labels, splits, settings, (classes, void), rejects, digest, tallies)
        report = _report(os.fspath(out), settings, classes, void, tallies, digest.hexdigest(), rejects, time.monotonic() - started)
        facts = {**dataclasses.asdict(report), "settings": dataclasses.asdict(settings), "source": os.fspath(source)}
        facts |= {"labels": os.fspath(labels), "count": report.counts.get("train", 0)}
        folders.finish(made, out, facts, rejects)
    return report


def read_names(path) -> tuple[str, ...]:
    """Class names from a text file, one a line, number 0 first; empty lines at the end are left out. ValueError or FileNotFoundError."""
    from etils import epath

    path = epath.Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"the file of class names {os.fspath(path)!r} does not exist")
    try:
        names = tuple(line.strip() for line in path.read_text().removeprefix("\ufeff").rstrip().splitlines())
    except UnicodeDecodeError:
        raise ValueError(f"{os.fspath(path)!r} is not a text file of class names, one a line") from None
    if not names:
        raise ValueError(f"{os.fspath(path)!r} is empty; write one class name a line, class 0 first")
    return _check_classes(names, None)


def _check_classes(classes: Sequence[str], void: int | None) -> tuple[str, ...]:
    if void is not None and not 0 <= void <= 255:
        raise ValueError(f"void is {void}, but must be in 0..255")
    if len(classes) > 256:
        raise ValueError(f"there are {len(classes)} class names, but a label map has at most 256")
    for number, name in enumerate(classes):
        if not name or name in classes[:number]:
            raise ValueError(f"class {number} {f'is named {name!r} like an earlier one' if name else 'has no name'}; each needs its own")
    return tuple(classes)


def match(source, labels, test_share: float, rejects: dict[str, str]) -> list[Pair]:
    """The pairs of the two folders, sorted by the image's path; files without a partner go to `rejects`."""
    inside = os.path.relpath(labels, source) if "://" not in os.fspath(source) else ".."
    below = "" if inside.startswith("..") or inside == "." else inside + os.sep  # label maps may lie in a subfolder of the images' folder
    images = [name for name in folders.image_files(source) if not (below and name.startswith(below))]
    maps: dict[str, str] = {}
    for name in folders.image_files(labels):
        stem = os.path.splitext(name)[0]
        if stem in maps:
            rejects[f"labels: {name}"] = f"{maps[stem]} has the same name; which of them belongs to the image cannot be told"
        else:
            maps[stem] = name
    tops = {name.split("/")[0] for name in images if "/" in name}
    divided = "train" in tops and len(tops & set(SPLITS)) > 1
    if divided and test_share:
        raise ValueError(f"the folder has the splits {', '.join(sorted(tops & set(SPLITS)))} already; leave out the test share")
    pairs, taken = [], {}
    for name in images:
        stem, top = os.path.splitext(name)[0], name.split("/")[0]
        if divided and top not in SPLITS:
            rejects[name] = f"it lies beside the splits, not in {', '.join(SPLITS)}"
        elif stem in taken:
            rejects[name] = f"{taken[stem]} has the same name; which of them the label map belongs to cannot be told"
        elif stem not in maps:
            rejects[name] = f"there is no label map {stem}.png"
        else:
            split = top if divided else "test" if folders.share(name) < test_share else "train"
            taken[stem] = name
            pairs.append(Pair(name, maps[stem], split))
    stems = {os.path.splitext(name)[0] for name in images}
    rejects |= {f"labels: {name}": "there is no image of its name" for stem, name in maps.items() if stem not in stems}
    return pairs


class Tally:
    """Counts of one split."""

    def __init__(self):
        self.count = 0
        self.pixels = np.zeros(256, np.int64)
        self.images = np.zeros(256, np.int64)

    def add(self, label: np.ndarray) -> None:
        found = np.bincount(label.ravel(), minlength=256)
        self.count += 1
        self.pixels += found
        self.images += found > 0


def _report(folder, settings, classes, void, tallies: dict[str, Tally], checksum, rejects, seconds) -> Report:
    if not classes:
        seen = sum(tally.pixels for tally in tallies.values())
        if void is not None:
            seen[void] = 0
        highest = int(np.flatnonzero(seen).max()) if seen.any() else 0
        classes = tuple(f"class {number}" for number in range(highest + 1))
    height, width = settings.size
    first = next(iter(tallies.values()))
    seen = np.maximum(first.images, 1) * (height * width)
    frequency = [round(float(share), 6) for share in (first.pixels / seen)[: len(classes)]]
    return Report(
        folder=folder,
        counts={split: tally.count for split, tally in tallies.items()},
        size=(height, width, settings.channels),
        classes=classes,
        void=void,
        pixels={split: tally.pixels[: len(classes)].tolist() for split, tally in tallies.items()},
        frequency=frequency,
        checksum=checksum,
        rejects=rejects,
        seconds=seconds,
    )


def _write(partial, source, labels, splits, settings: Settings, allowed, rejects, digest, tallies: dict[str, Tally]):
    """Runs the TFDS builder inside `partial`; returns the folder it made."""
    from jaxgan.data import builders
    from jaxgan.data.drawers import encode_png

    tfds = builders.tfds

    def read(pair: Pair):
        try:
            image, label = read_pair(source / pair.image, labels / pair.label, settings, *allowed)
            return pair, image, label, encode_png(image), encode_png(label), ""
        except Rejected as error:
            return pair, None, None, b"", b"", str(error)

    def records(split: str, pairs: list[Pair]) -> Iterator[tuple[int, dict[str, object]]]:
        tally = tallies[split]
        work = builders.track(folders.in_threads(read, pairs), f"importing {len(pairs):,} pairs ({split})", len(pairs))
        for pair, image, label, image_png, label_png, reason in work:
            if reason:
                rejects[pair.image] = reason
                continue
            digest.update(image.tobytes())
            digest.update(label.tobytes())
            yield tally.count, {"image": image_png, "label": label_png, "file": os.fsencode(pair.image)}
            tally.add(label)
        if not tally.count:  # TFDS writes no empty split
            first, reason = next((pair.image, rejects[pair.image]) for pair in pairs)
            raise ValueError(f"all {len(pairs)} pairs for the split {split!r} were rejected, the first ({first}) because: {reason}")

    class Pairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Images and label maps imported from two folders."""

        VERSION = tfds.core.Version("1.0.0")
        url_infos: dict = {}
        pkg_dir_path = None

        def _info(self):
            image = tfds.features.Image(shape=(*settings.size, settings.channels), encoding_format="png")
            label = tfds.features.Image(shape=(*settings.size, 1), encoding_format="png")
            features = tfds.features.FeaturesDict({"image": image, "label": label, "file": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features, description=self.__doc__, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, pairs) for split, pairs in splits.items()}

        def _generate_examples(self, split, pairs):
            return records(split, pairs)

    with builders.quiet():
        builder = Pairs(data_dir=os.fspath(partial), file_format="array_record")
    builders.generate(builder)
    return builder.data_path


def read_pair(image_path, label_path, settings: Settings, classes: Sequence[str], void: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [H, W, C] and label map uint8 [H, W] at the size wanted. Raises Rejected with the reason."""
    label = read_label(label_path, settings.max_pixels)
    height, width = label.shape

    def finish(image, settings: Settings) -> np.ndarray:
        if image.size != (width, height):
            raise Rejected(f"the image has {image.width}x{image.height} pixels and its label map {width}x{height}")
        return folders.framed(image, settings)

    image = folders.read_with(image_path, settings, finish)
    if _turned(image_path):
        raise Rejected("its EXIF data turn the image, and the label map has none: save it turned, or remove the EXIF data")
    if classes:
        wrong = sorted(set(np.unique(label).tolist()) - set(range(len(classes))) - {void})
        if wrong:
            listed = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
            remedy = "" if void is not None else " (--void names a number that stands for 'not known')"
            raise Rejected(f"the label map holds {listed}, but the classes are 0..{len(classes) - 1}{remedy}")
    if void is not None and (label == void).all():
        raise Rejected("every pixel of the label map is void")
    from PIL import Image

    return image, frame(Image.fromarray(label), settings.size, settings.crop, "nearest")[..., 0]


def _turned(path) -> bool:
    from PIL import Image

    return Image.open(io.BytesIO(path.read_bytes())).getexif().get(0x0112, 1) != 1


def read_label(path, max_pixels: int) -> np.ndarray:
    """A PNG of class numbers as uint8 [H, W], grey or palette, of 1 to 8 bits. Raises Rejected with the reason."""
    from PIL import Image, UnidentifiedImageError

    try:
        length = path.stat().length
        if not 0 < length <= MAX_BYTES:
            raise Rejected(f"its label map has {length:,} bytes; 1 to {MAX_BYTES:,} are read")
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
        if image.format != "PNG":
            raise Rejected(f"its label map is a {image.format} file: class numbers survive only in PNG")
        if image.width * image.height > max_pixels:
            raise Rejected(f"{image.width}x{image.height} pixels are more than the limit of {max_pixels:,} (--max-pixels)")
        if getattr(image, "n_frames", 1) > 1:
            raise Rejected(f"its label map is an animation of {image.n_frames} frames")
        if image.mode not in ("L", "P", "1"):
            raise Rejected(f"its label map has colour mode {image.mode}: class numbers are grey or palette values of 8 bits")
        pixels = np.asarray(image).astype(np.uint8)
    except Rejected:
        raise
    except UnidentifiedImageError:
        raise Rejected("its label map is not a PNG image, or its header is damaged") from None
    except Exception as error:  # as for images: whatever a decoder raises on hostile bytes
        raise Rejected(f"its label map cannot be read: {error or type(error).__name__}") from None
    bits, grey = data[24], data[25] == 0  # of the IHDR chunk, which comes first
    if grey and image.mode == "L" and bits < 8:  # PIL stretches grey of 2 and 4 bits to 0..255
        pixels //= 255 // (2**bits - 1)
    return pixels
