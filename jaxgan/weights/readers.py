"""One way to read a file of arrays, whichever program wrote it; and which file a user means by a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxgan.arrays import MAX_BYTES, read_npz, read_safetensors
from jaxgan.weights.contents import READABLE, kind
from jaxgan.weights.keras_files import read_h5
from jaxgan.weights.torch_files import read_legacy, read_zip

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".h5", ".hdf5")


def read(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a file by name: safetensors, npz, PyTorch (zip or legacy) or Keras h5. Its beginning decides which, not its suffix.

    bfloat16 becomes float32. Names are the file's own; those of nested dicts of PyTorch are joined by dots. Nothing in the file is run.

    Raises:
      ValueError: another kind of file (it says which), a damaged file, pickled objects, or more than ``jaxgan.arrays`` allows.
      FileNotFoundError: no such file.
    """
    path = Path(path).expanduser()
    what = readable(path)
    if what == "safetensors":
        return read_safetensors(path)[0]
    return {"npz": read_npz, "torch zip": read_zip, "torch legacy": read_legacy, "h5": read_h5}[what](path)


def readable(path: Path) -> str:
    """Which of ``contents.READABLE`` the file is; ValueError that says what it is where it is none."""
    what = kind(path)
    if what not in READABLE:
        raise ValueError(f"{path} is {what}; weights are read from safetensors, .npz, PyTorch .pth and Keras .h5 files")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read")
    return what


def choose(path: str | Path, wanted: str, word: str) -> Path:
    """The file a user means: `path` itself, or in a folder the file `wanted`, else the only one whose name contains `word`.

    Raises:
      FileNotFoundError: nothing there, or no such file in the folder. ValueError: several; all are named.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist or is not a file")
        return path
    if (path / wanted).is_file():
        return path / wanted
    files = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in SUFFIXES)
    named = [file for file in files if word in file.name.lower()]
    if len(named) > 1:
        raise ValueError(f"{path} holds {len(named)} such files ({', '.join(file.name for file in named[:5])}): name one of them")
    if not named:
        held = ", ".join(file.name for file in files[:5]) or "no file of weights"
        raise FileNotFoundError(f"{path} holds neither {wanted} nor another file with {word!r} in its name; it holds {held}")
    return named[0]
