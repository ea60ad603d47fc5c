"""Arrays that come from outside: named files of published networks, files that users have of them, and generators on disk.

Everything read here is checked before it is used, and no pickle is ever run. `readers` reads safetensors, npz, PyTorch and Keras files,
`contents` tells what a wrong file is, `vgg` knows the layouts of VGG16, `downloads` fetches what has a known checksum. What is imported is
kept as safetensors.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgan.arrays import arrays_checksum, check_arrays, check_finite, checksum, read_arrays, read_safetensors
from jaxgan.weights import vgg
from jaxgan.weights.contents import kind
from jaxgan.weights.downloads import download, is_address, offline
from jaxgan.weights.generators import import_generator, load_generator, save_generator
from jaxgan.weights.readers import choose, read, readable
from jaxgan.weights.registry import KNOWN, Weights

__all__ = [
    "KNOWN",
    "Weights",
    "about",
    "cache_folder",
    "check_arrays",
    "check_finite",
    "checksum",
    "download",
    "find",
    "import_generator",
    "import_weights",
    "list_weights",
    "load",
    "load_generator",
    "read",
    "read_arrays",
    "save_generator",
    "verify",
]


def cache_folder() -> Path:
    """Where imported files are kept: ``~/.cache/jaxgan/weights``, or below ``$XDG_CACHE_HOME``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxgan" / "weights"


def find(name: str) -> Path | None:
    """The file of named weights, or None: the published one in ``$JAXGAN_WEIGHTS`` or the cache, else one converted by an import there.

    Raises:
      ValueError: unknown name.
    """
    entry = _entry(name)
    folders = [Path(os.environ["JAXGAN_WEIGHTS"]).expanduser()] if os.environ.get("JAXGAN_WEIGHTS") else []
    files = [folder / file for file in (entry.file, f"{name}_imported.safetensors") for folder in [*folders, cache_folder()]]
    return next((file for file in files if file.is_file()), None)


def load(name: str, path: str | Path | None = None) -> dict[str, np.ndarray]:
    """Named weights by array name, after all checks.

    Args:
      name: a key of ``KNOWN``.
      path: the file itself, or a folder that holds it, in place of looking for it. For 'vgg16' any layout that ``vgg.convert`` knows, of
        any widths that fit each other; ``about(name, path)`` tells the preprocessing which its kernels expect.

    Raises:
      FileNotFoundError: they are not on this machine; says where they come from. ValueError: unknown name, wrong or damaged file.
      OSError: they can be fetched, and the network failed.
    """
    return _open(name, path).arrays


def about(name: str, path: str | Path | None = None) -> dict[str, str]:
    """What is known of named weights as ``load`` would read them, for the protocol of a score.

    Returns:
      'file' (its path), 'sha256' (of the file), 'source', 'numbers' ('published', or what they are instead), and for VGG16 'preprocessing'
      (a key of ``vgg.INPUTS``); of an imported file also 'layout', 'source_file', 'source_sha256'.

    Raises:
      As ``load``.
    """
    found = _open(name, path)
    return {"file": str(found.file), "sha256": checksum(found.file), **found.about}


def import_weights(name: str, path: str | Path, *, cache: str | Path | None = None) -> Path:
    """Checks a user's file and puts it where commands find it, as safetensors in this library's names.

    Args:
      name: a key of ``KNOWN``, or '' to recognise a published file by its checksum. A Keras file given for 'vgg16' becomes 'vgg16_caffe',
        whose kernels expect other input.
      path: the file, a folder that holds it, or an address (https://), which is fetched only where the checksum of the file is known.
      cache: folder to write to; default ``cache_folder()``.

    Returns:
      The new file: a copy of the published one, or ``NAME_imported.safetensors`` with its source in the metadata. An interrupted import
      leaves nothing under that name.

    Raises:
      ValueError: unknown name, or a file that is not what the name says; nothing is written. OSError: unreadable, or no space.
    """
    folder = Path(cache).expanduser() if cache else cache_folder()
    if is_address(path):
        entry = _entry(name)
        if not entry.sha256:
            raise ValueError(f"{path} is not fetched: no checksum of {name} is known; get the file by hand and import it")
        return _fetch(entry, str(path), folder)
    path = Path(path).expanduser()
    if not name:
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist or is not a file")
        digest = checksum(path)
        name = next((known for known, entry in KNOWN.items() if entry.sha256 == digest), "")
        if not name:
            raise ValueError(f"{path} (sha256 {digest}) is none of the known files: {', '.join(KNOWN)}")
    found = _open(name, path, import_as=True)
    if found.published:
        target = folder / KNOWN[found.name].file
        _write(target, found.file, lambda part: shutil.copyfile(found.file, part), KNOWN[found.name].sha256)
        return target

    from safetensors.numpy import save_file

    target = folder / f"{found.name}_imported.safetensors"
    notes = {**found.about, "arrays_sha256": arrays_checksum(found.arrays)}
    _write(target, found.file, lambda part: save_file(found.arrays, part, notes))
    return target


def list_weights() -> str:
    """A table of the named weights: where they are, what they are, under which licence."""
    lines = []
    for name, entry in KNOWN.items():
        there = find(name)
        size = f"{entry.size / 1e6:6.1f} MB" if entry.size else " " * 9
        lines.append(f"{name:15} {size}  {entry.what}")
        lines.append(f"{'':15} licence {entry.licence}; from {entry.source}")
        lines.append(f"{'':15} {there or f'not on this machine; jaxgan weights import {name} FILE'}")
    return "\n".join(lines)


def verify(name: str | None = None) -> str:
    """Checks named weights, a file, a generator folder, or with None everything that is on this machine; returns one line for each.

    Raises:
      ValueError: with all lines, where a file is wrong. FileNotFoundError: it is not there.
    """
    lines, wrong = [], False
    if name and name not in KNOWN:
        path = Path(name).expanduser()
        if path.is_dir():
            family, _, arrays = load_generator(path)
            return f"{path}: a {family} generator, {len(arrays)} arrays, {sum(a.size for a in arrays.values()):,} numbers, intact"
        if not path.is_file():
            raise FileNotFoundError(f"{name!r} is neither a file nor known weights; known: {', '.join(KNOWN)}")
        digest = checksum(path)
        known = next((key for key, entry in KNOWN.items() if entry.sha256 == digest), None)
        arrays = read(path)
        check_finite(arrays, path)
        what = f"is {known}" if known else f"is none of the known files (sha256 {digest}), but whole"
        return f"{path}: {what}, {len(arrays)} arrays, all finite"
    for known in [name] if name else KNOWN:
        try:
            file = find(known)
            if file is None and not name:
                continue
            found = _open(known, None, fetch=False)
            origin = "" if found.published else f", imported from {found.about['source_file']}: {found.about['numbers']}"
            lines.append(f"{known}: {len(found.arrays)} arrays, intact ({found.file}{origin})")
        except ValueError as error:
            lines.append(f"{known}: {error}")
            wrong = True
    if wrong:
        raise ValueError("\n".join(lines))
    return "\n".join(lines) or f"no known weights on this machine; {list(KNOWN)} can be imported with: jaxgan weights import NAME FILE"


class _Found(NamedTuple):
    name: str
    file: Path
    arrays: dict[str, np.ndarray]
    about: dict[str, str]
    published: bool


def _open(name: str, path: str | Path | None, *, fetch: bool = True, import_as: bool = False) -> _Found:
    """Named weights from where they are, or from a user's file; `import_as`: only what may be kept under a name."""
    entry = _entry(name)
    if path is not None:
        file = choose(path, entry.file, name.partition("_")[0])
        return _users(name, entry, file, import_as)
    found = find(name)
    if found is None:
        if fetch and entry.url and not offline():
            found = _fetch(entry, entry.url, cache_folder())
        else:
            raise FileNotFoundError(_absent(name, entry))
    if entry.sha256 and found.name == entry.file:
        return _published(name, entry, found)
    if not _written_by_import(found):
        raise ValueError(f"{found} was not written by an import, whose name it has; import it again from its source")
    return _users(name, entry, found, True)


def _users(name: str, entry: Weights, file: Path, keep: bool) -> _Found:
    """A user's file: the published one, or one in another layout that holds the same network."""
    what = readable(file)
    same = file.name == entry.file or file.stat().st_size == entry.size
    if entry.sha256 and (same or not entry.reader) and what == "safetensors" and not _written_by_import(file):
        return _published(name, entry, file)
    arrays, notes = read_safetensors(file) if what == "safetensors" else (read(file), {})
    if notes.get("arrays_sha256", "") not in ("", arrays_checksum(arrays)):
        raise ValueError(f"{file} is damaged: the sha256 of its arrays is not the recorded one; import it again from its source")
    origin = {key: notes[key] for key in ("source_file", "source_sha256", "layout", "reader") if "arrays_sha256" in notes and key in notes}
    origin = origin or {"source_file": file.name, "source_sha256": checksum(file), "reader": what}
    if entry.reader == "vgg16":
        return _vgg16(name, file, arrays, origin, notes.get("preprocessing", ""), keep)
    if not entry.digest or arrays_checksum(arrays) != entry.digest:
        check_arrays(arrays, entry.arrays, file)
        raise ValueError(f"{file} ({what}) does not hold the numbers of {entry.file}; get that file (sha256 {entry.sha256[:12]}...)")
    return _Found(name, file, arrays, {"source": entry.source, "numbers": "published", **origin}, False)


def _vgg16(name: str, file: Path, arrays: dict[str, np.ndarray], origin: dict[str, str], preprocessing: str, keep: bool) -> _Found:
    try:
        converted = vgg.convert(arrays, widths=vgg.WIDTHS if keep else None)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    given = preprocessing if preprocessing in vgg.INPUTS else "caffe" if name == "vgg16_caffe" else "torchvision"
    expects = given if converted.layout == "jaxgan" else converted.preprocessing
    rounded = {key: array.astype(np.float16 if array.ndim == 4 else np.float32) for key, array in converted.arrays.items()}
    published = arrays_checksum(rounded) == KNOWN["vgg16"].digest if "vgg16" in KNOWN else False
    if keep and name == "vgg16_caffe" and (expects != "caffe" or published):
        raise ValueError(f"{file} expects {vgg.INPUTS['torchvision']}: import it as vgg16")
    numbers = "published" if published else "other than those of the published file"
    notes = {"layout": converted.layout, **origin, "preprocessing": expects, "numbers": numbers, "source": origin["source_file"]}
    return _Found("vgg16_caffe" if expects == "caffe" else "vgg16", file, rounded if published else converted.arrays, notes, False)


def _written_by_import(file: Path) -> bool:
    try:
        return "arrays_sha256" in read_safetensors(file)[1]
    except ValueError:
        return False


def _published(name: str, entry: Weights, file: Path) -> _Found:
    notes = {"source": entry.source, "numbers": "published"} | ({"preprocessing": "torchvision"} if entry.reader == "vgg16" else {})
    return _Found(name, file, _check(entry, file), notes, True)


def _entry(name: str) -> Weights:
    if name not in KNOWN:
        import difflib

        near = difflib.get_close_matches(name, KNOWN, n=1)
        raise ValueError(f"weights {name!r} are not known{f'; nearest: {near[0]}' if near else ''}; known: {', '.join(KNOWN)}")
    return KNOWN[name]


def _absent(name: str, entry: Weights) -> str:
    looked = " and in ".join(filter(None, [os.environ.get("JAXGAN_WEIGHTS"), str(cache_folder())]))
    address = f"JAXGAN_OFFLINE is set, so {entry.url} was not fetched" if entry.url else "no address is known here"
    wanted = f"Get {entry.file} (sha256 {entry.sha256[:12]}...)" if entry.sha256 else "Get one"
    return (
        f"weights {name!r} are not on this machine (looked for {entry.file} in {looked}). They come from {entry.source}; {address}. "
        f"{wanted} and run: jaxgan weights import {name} FILE"
    )


def _fetch(entry: Weights, url: str, folder: Path) -> Path:
    target = download(url, entry.sha256, entry.size, folder / entry.file)
    _check(entry, target)
    return target


def _write(target: Path, source: Path, write: Callable[[Path], object], sha256: str = "") -> None:
    """Makes `target` by `write(temporary file)` and a rename, unless it is the source itself."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(source):
        return
    part = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        write(part)
        if sha256 and checksum(part) != sha256:
            raise ValueError(f"{source} changed while it was copied; import it again")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _check(entry: Weights, path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file after comparing size, checksum, names, shapes and finiteness with what is known of it."""
    size = path.stat().st_size
    if size != entry.size:
        raise ValueError(f"{path} has {size:,} bytes and {entry.file} has {entry.size:,}: it is another file, or cut short")
    digest = checksum(path)
    if digest != entry.sha256:
        raise ValueError(f"{path} has sha256 {digest}, not {entry.sha256}: it is another file, or damaged")
    if kind(path) != "safetensors":
        raise ValueError(f"{path} is {kind(path)}, not a safetensors file")
    arrays = read_safetensors(path)[0]
    if len(arrays) != entry.count:
        raise ValueError(f"{path} holds {len(arrays)} arrays, not {entry.count}")
    check_arrays(arrays, entry.arrays, path)
    check_finite(arrays, path)
    return arrays
