"""What a file is, by its first bytes: a wrong file is named before anything tries to read it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from jaxgan.arrays import MAX_HEADER
from jaxgan.weights.torch_files import MAGIC

READABLE = ("safetensors", "npz", "torch zip", "torch legacy", "h5")
"""What ``jaxgan.weights.read`` reads, as ``kind`` calls it."""

_BEGINNINGS = {
    b"version https://git-lfs": "a git LFS pointer, a few lines in place of the file (fetch it: git lfs pull)",
    b"model_checkpoint_path:": "the list of a TensorFlow checkpoint; its variables are in other files",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip file (unpack it first)",
    b"BZh": "a bzip2 file (unpack it first)",
    b"\xfd7zXZ\x00": "an xz file (unpack it first)",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive (unpack it first)",
    b"Rar!": "a RAR archive (unpack it first)",
    b"\x28\xb5\x2f\xfd": "a zstandard file (unpack it first)",
    b"\x93NUMPY": "a single .npy array (weights are several: save them with numpy.savez)",
    b"\x7fELF": "a program",
    b"MZ": "a program",
}
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_TABLE_MAGIC = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
"""Last bytes of a TensorFlow checkpoint's index."""


def kind(path: str | Path) -> str:
    """One of ``READABLE``, or words that say what the file is instead ('an HTML page ...').

    Raises:
      FileNotFoundError: no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file")
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(2048)
        file.seek(max(size - 8, 0))
        tail = file.read(8)
    if not head:
        return "empty"
    if head.startswith(b"PK"):
        return _archive(path)
    if head.startswith(MAGIC):
        return "torch legacy"
    if head.startswith(b"\x89HDF\r\n\x1a\n") or (size > 520 and head[512:520] == b"\x89HDF\r\n\x1a\n"):
        return "h5"
    if len(head) > 8 and 2 <= int.from_bytes(head[:8], "little") <= max(size, MAX_HEADER) and head[8:9] == b"{":
        return "safetensors"
    for beginning, words in _BEGINNINGS.items():
        if head.startswith(beginning):
            return words
    if tail == _TABLE_MAGIC:
        return "the index of a TensorFlow checkpoint; its variables are in other files (save them as .npz with TensorFlow)"
    return _other(path, head)


def _other(path: Path, head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<script")) or b"<html" in text[:1024]:
        return "an HTML page (a site's page was saved in place of the file: download the file itself)"
    if text.startswith(b"<?xml"):
        return "an XML text"
    if text.startswith((b"{", b"[")):
        return "a JSON text"
    if head[257:262] == b"ustar":
        return "a tar archive (unpack it first; a torch file of before 0.1.10 is one, too: save it again with a newer torch)"
    if head[:1] == b"\x80" and 2 <= head[1] <= 5 if len(head) > 1 else False:
        return _pickle(path)
    if ".data-" in path.name and path.name.rpartition("-of-")[2].isdigit():
        return "the data of a TensorFlow checkpoint (save its variables as .npz with TensorFlow)"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if path.suffix in (".pb", ".meta"):
        return "a TensorFlow graph"
    if path.suffix == ".onnx":
        return "an ONNX model"
    if head.isascii() and head.decode("ascii").replace("\n", "").replace("\r", "").replace("\t", "").isprintable():
        return f"a text that begins {head[:40].decode('ascii')!r}"
    return f"of no known kind: it begins with the bytes {head[:8].hex(' ')}"


def _pickle(path: Path) -> str:
    """A pickle's text is searched for the names of modules; nothing of it is carried out."""
    with open(path, "rb") as file:
        head = file.read(2**20)
    if b"dnnlib.tflib.network" in head or b"torch_utils.persistence" in head:
        return "a StyleGAN pickle (networks with their source code)"
    if b"sklearn" in head:
        return "a scikit-learn pickle"
    return "a pickle, which could run any code"


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError, IndexError) as error:
        return f"a damaged zip archive, probably cut short ({error})"
    if not names:
        return "an empty zip archive"
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "torch zip"
    if all(name.endswith(".npy") for name in names):
        return "npz"
    images = sum(name.lower().endswith(_IMAGES) for name in names)
    if 2 * images >= len(names):
        return f"a zip of images ({images:,})"
    if "model.weights.h5" in names:
        return "a Keras 3 archive (unpack it first: model.weights.h5 in it can be read)"
    if any(name.endswith("saved_model.pb") for name in names):
        return "a zip of a TensorFlow SavedModel"
    return f"a zip of {len(names):,} files, the first {names[0]!r:.80}"
