"""A folder of anybody's images becomes a dataset once: decoded with suspicion, cropped, resized, written whole or not at all.

What cannot be read is named in a report with the reason, so that no training run meets it hours later.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from jaxgan.data.framing import check_framing, crop_box, frame

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_BYTES = 512 << 20
"""A larger file is rejected unread."""


class Rejected(ValueError):
    """This file is left out; the message says why."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What an import did."""

    folder: str
    count: int
    """Images in the split 'train'."""
    test_count: int
    """Images in the split 'test'."""
    size: tuple[int, int, int]
    """(H, W, C)."""
    checksum: str
    """SHA-256 over the pixels of all images, in order of split ('train', 'test') and path."""
    rejects: dict[str, str]
    """Reason by file, relative to the source folder."""
    seconds: float


@dataclasses.dataclass(frozen=True)
class Settings:
    """How each file is read; written into facts.json."""

    size: tuple[int, int]
    crop: str
    filter: str
    channels: int
    alpha: str
    upscale: bool
    max_pixels: int
    test_share: float


def import_folder(
    source_dir,
    out_dir,
    *,
    size: tuple[int, int],
    crop: str = "center",
    filter: str = "lanczos",
    channels: int = 3,
    alpha: str = "white",
    upscale: bool = False,
    max_pixels: int = 64_000_000,
    test_share: float = 0.0,
) -> Report:
    """Imports every PNG, JPEG and WebP below `source_dir` into a new dataset folder `out_dir`, at `size` = (H, W) pixels.

    `crop`, `filter`: see `jaxgan.data.framing`. `channels`: 1 (ITU-R 601 luma), 3 or 4. `alpha`: what shows through transparent pixels
    where channels < 4 ('white', 'black'), or 'reject' such files. `upscale`: take images smaller than `size` too. `max_pixels`: larger ones
    are rejected before they are decoded. `test_share`: share of the files, by a hash of their path, that goes to the split 'test'.

    EXIF orientation is applied; palettes are expanded; 16-bit grey is scaled to 8 bits; CMYK is converted by PIL's plain formula; colour
    profiles are ignored; other modes, animations and broken files are rejected. Beside the records, `out_dir` holds facts.json and
    rejects.json. Raises FileNotFoundError, FileExistsError, ValueError (nothing to import, or a wrong setting) and OSError (no room);
    then nothing is left under the name `out_dir`.
    """
    from etils import epath

    settings = Settings(tuple(size), crop, filter, channels, alpha, upscale, max_pixels, test_share)
    check(settings)
    source, out = epath.Path(source_dir).expanduser(), epath.Path(out_dir).expanduser()
    if not source.is_dir():
        raise FileNotFoundError(f"there is no folder {os.fspath(source)!r} to import from")
    if out.exists():
        raise FileExistsError(f"{os.fspath(out)!r} exists already; name a new folder or remove that one first")
    files = image_files(source)
    if not files:
        raise ValueError(f"no file below {os.fspath(source)!r} ends in {', '.join(SUFFIXES)}")
    held = [name for name in files if share(name) < test_share]
    kept = [name for name in files if share(name) >= test_share]

    started = time.monotonic()
    rejects: dict[str, str] = {}
    digest = hashlib.sha256()
    with building(out, rejects, len(files)) as partial:
        made, counts = _write(partial, source, {"train": kept, "test": held}, settings, rejects, digest)
        height, width = settings.size
        seconds = time.monotonic() - started
        shape = (height, width, channels)
        report = Report(os.fspath(out), counts["train"], counts.get("test", 0), shape, digest.hexdigest(), rejects, seconds)
        facts = {**dataclasses.asdict(report), "settings": dataclasses.asdict(settings), "source": os.fspath(source)}
        finish(made, out, facts, rejects)
    return report


@contextlib.contextmanager
def building(out, rejects: dict[str, str], total: int | None) -> Iterator:
    """A folder beside `out` in which an import is made; in the end it is gone, and `rejects` of `total` files are printed.

    `total` None: they are no files, and of how many is not known.

    Raises OSError, saying that `out` was not written, for any other OSError inside.
    """
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        yield partial
    except OSError as error:
        raise OSError(f"{os.fspath(out)!r} was not written: {error}; make room or name another folder") from error
    finally:
        if partial.exists():
            partial.rmtree()
        print_rejects(rejects, total)


def finish(made, out, facts: dict[str, object], rejects: dict[str, str]) -> None:
    """Writes facts.json (of the rejects their number alone, and not the folder's own name) and rejects.json; then `made` becomes `out`."""
    facts = {**facts, "rejects": len(rejects)}
    del facts["folder"]
    (made / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    (made / "rejects.json").write_text(json.dumps(rejects, indent=1, ensure_ascii=True) + "\n")
    made.rename(out)


def check(settings: Settings) -> None:
    check_framing(settings.crop, settings.filter)
    if len(settings.size) != 2 or min(settings.size) < 1 or max(settings.size) > 8192:
        raise ValueError(f"size is {settings.size}, but must be (height, width) with both in 1..8192")
    if settings.channels not in (1, 3, 4):
        raise ValueError(f"channels is {settings.channels}; use 1 (grey), 3 (colour) or 4 (colour and transparency)")
    if settings.alpha not in ("white", "black", "reject"):
        raise ValueError(f"alpha is {settings.alpha!r}; use 'white', 'black' or 'reject'")
    if not 0 <= settings.test_share < 1:
        raise ValueError(f"test_share is {settings.test_share}, but must be at least 0 and below 1")
    if settings.max_pixels < 1:
        raise ValueError(f"max_pixels is {settings.max_pixels}, but must be at least 1")


def image_files(source) -> list[str]:
    """Paths below `source`, in an order that does not depend on the file system; links to folders are not followed, for they may loop."""
    if "://" not in os.fspath(source):
        found = [os.path.relpath(os.path.join(top, name), source) for top, _, names in os.walk(source) for name in names]
    else:
        found, waiting = [], [source]
        while waiting:
            for path in waiting.pop().iterdir():
                waiting.append(path) if path.is_dir() else found.append(path.relative_to(source).as_posix())
    return sorted(name for name in found if name.lower().endswith(SUFFIXES) and not os.path.basename(name).startswith("._"))


def share(name: str) -> float:
    """A number in [0, 1) that depends on the path alone, so that a larger import keeps every file on its side of the split."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:7], "big") / 2**56


def _write(partial, source, splits: dict[str, list[str]], settings: Settings, rejects: dict[str, str], digest):
    """Runs the TFDS builder inside `partial`; returns the folder it made and the number of images of each split."""
    from jaxgan.data import builders

    tfds = builders.tfds
    counts: dict[str, int] = {}

    def records(split: str, names: list[str]) -> Iterator[tuple[int, dict[str, object]]]:
        counts[split] = 0
        work = _read_all(source, names, settings)
        for name, pixels, data, reason in builders.track(work, f"importing {len(names):,} files ({split})", len(names)):
            if reason:
                rejects[name] = reason
                continue
            digest.update(pixels)
            yield counts[split], {"image": data, "file": os.fsencode(name)}
            counts[split] += 1
        if not counts[split] and (names or split == "train"):  # TFDS writes no empty split
            first = next(((name, rejects[name]) for name in names), ("", "none was meant for it"))
            raise ValueError(f"all {len(names)} files for the split {split!r} were rejected, the first ({first[0]}) because: {first[1]}")

    class Images(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Images imported from a folder."""

        VERSION = tfds.core.Version("1.0.0")
        url_infos: dict = {}
        pkg_dir_path = None

        def _info(self):
            image = tfds.features.Image(shape=(*settings.size, settings.channels), encoding_format="png")
            features = tfds.features.FeaturesDict({"image": image, "file": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features, description=self.__doc__, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, names) for split, names in splits.items() if names}

        def _generate_examples(self, split, names):
            return records(split, names)

    with builders.quiet():
        builder = Images(data_dir=os.fspath(partial), file_format="array_record")
    builders.generate(builder)
    return builder.data_path, counts


def _read_all(source, names: list[str], settings: Settings) -> Iterator[tuple[str, bytes, bytes, str]]:
    """(name, pixel bytes, PNG bytes, '') or (name, b'', b'', reason) of each file, in order; decoded by threads."""
    from jaxgan.data.drawers import encode_png

    def read(name: str) -> tuple[str, bytes, bytes, str]:
        try:
            pixels = np.ascontiguousarray(read_image(source / name, settings))
            return name, pixels.tobytes(), encode_png(pixels), ""
        except Rejected as error:
            return name, b"", b"", str(error)

    return in_threads(read, names)


def in_threads(read: Callable, items: Sequence) -> Iterator:
    """``read(item)`` of each item, in order, by as many threads as there are processors; PIL's own limit on pixels is off meanwhile."""
    import collections
    from concurrent.futures import ThreadPoolExecutor

    from PIL import Image

    threads = os.cpu_count() or 1
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked before any pixel is decoded, and does not depend on the warning filters
    try:
        with ThreadPoolExecutor(threads) as pool:
            ahead: collections.deque = collections.deque()
            for item in items:
                ahead.append(pool.submit(read, item))
                if len(ahead) > 8 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def read_image(path, settings: Settings) -> np.ndarray:
    """One file as uint8 [H, W, C]. Raises Rejected with the reason; whatever a hostile file makes a decoder raise becomes a reason too."""
    return read_with(path, settings, framed)


def read_whole(path, *, channels: int = 3, alpha: str = "white", max_pixels: int = 64_000_000) -> np.ndarray:
    """One file at its own size as uint8 [H, W, C], read with the same suspicion as by an import. Raises Rejected with the reason."""
    settings = Settings((1, 1), "none", "lanczos", channels, alpha, True, max_pixels, 0.0)
    pixels = read_with(path, settings, lambda image, _: np.asarray(image))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def framed(image, settings: Settings) -> np.ndarray:
    left, top, right, bottom = crop_box(*image.size, settings.size, settings.crop)
    if not settings.upscale and (bottom - top < settings.size[0] or right - left < settings.size[1]):
        wanted = f"{settings.size[1]}x{settings.size[0]}"
        raise Rejected(f"{right - left}x{bottom - top} pixels after the crop are fewer than the {wanted} wanted (--upscale takes it)")
    return frame(image, settings.size, settings.crop, settings.filter)


def read_with(path, settings: Settings, finish) -> np.ndarray:
    """``finish(decoded PIL image, settings)`` behind the checks of length, format, size, animation and colour mode."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        length = path.stat().length
        if length == 0:
            raise Rejected("the file is empty")
        if length > MAX_BYTES:
            raise Rejected(f"the file has {length:,} bytes, more than {MAX_BYTES:,}")
        image = Image.open(io.BytesIO(path.read_bytes()), formats=("PNG", "JPEG", "WEBP"))
        width, height = image.size
        if width * height > settings.max_pixels:
            raise Rejected(f"{width}x{height} pixels are more than the limit of {settings.max_pixels:,} (--max-pixels)")
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a camera's JPEG with previews; the first is the photograph
            raise Rejected(f"it is an animation of {image.n_frames} frames")
        image.load()
        return finish(to_mode(ImageOps.exif_transpose(image), settings.channels, settings.alpha), settings)
    except Rejected:
        raise
    except UnidentifiedImageError:
        raise Rejected("it is not a PNG, JPEG or WebP image, or its header is damaged") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, zlib.error, MemoryError, ... on hostile bytes
        raise Rejected(f"it cannot be read: {error or type(error).__name__}") from None


def to_mode(image, channels: int, alpha: str):
    """A decoded PIL image in mode L, RGB or RGBA. Raises Rejected for a mode that has no agreed meaning here."""
    from PIL import Image

    mode = image.mode
    if mode.startswith("I"):  # 16-bit grey PNG
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise Rejected(f"mode {mode} holds values outside 16 bits")
        image = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    elif mode in ("P", "PA", "LA") or (mode in ("1", "L", "RGB") and "transparency" in image.info):
        image = image.convert("RGBA" if mode in ("PA", "LA") or "transparency" in image.info else "RGB")
    elif mode == "1":
        image = image.convert("L")
    elif mode in ("CMYK", "YCbCr"):
        image = image.convert("RGB")
    elif mode not in ("L", "RGB", "RGBA"):
        raise Rejected(f"colour mode {mode} is not supported")
    if image.mode == "RGBA" and channels < 4:
        if image.getextrema()[3][0] < 255:
            if alpha == "reject":
                raise Rejected("it has transparent pixels (--alpha white or black takes it)")
            image = Image.alpha_composite(Image.new("RGBA", image.size, alpha), image)
        image = image.convert("RGB")
    return image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])


def print_rejects(rejects: dict[str, str], total: int | None, most: int = 40) -> None:
    """A table of the files left out and why, on stderr; nothing where none was."""
    if not rejects:
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("file", "reason", title=f"{len(rejects)} rejected" if total is None else f"{len(rejects)} of {total} files rejected")
    for name in list(rejects)[:most]:
        table.add_row(*(escape(text.encode("utf-8", "backslashreplace").decode()) for text in (name, rejects[name])))
    if len(rejects) > most:
        table.add_row("...", f"and {len(rejects) - most} more, all in rejects.json")
    Console(stderr=True).print(table)
