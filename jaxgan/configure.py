"""An experiment as typed frozen dataclasses."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Data:
    """Where the images come from."""

    source: str = "scenes"
    """'scenes' (made by code), 'tfds:NAME[/CONFIG]' (a catalogue set), or the folder that `jaxgan data import` made."""
    split: str = "train"
    """Which part of the source."""
    root: str = ""
    """Folder of prepared sets; empty: $JAXGAN_DATA, else the user's cache folder."""
    periodic: bool = False
    """scenes only: left and right edges meet."""
    count: int = 50_000
    """scenes only: number of distinct images."""
    crop: str = "center"
    """catalogue sets only: how the image is cut to the aspect wanted ('center', 'none', 'celeba')."""
    filter: str = "lanczos"
    """catalogue sets only: resize filter ('lanczos', 'bicubic', 'bilinear', 'box', 'nearest')."""
    workers: int = 0
    """Loader processes; 0 reads in threads. Part of the saved position: keep it for the length of a run."""


@dataclasses.dataclass(frozen=True)
class Run:
    """How long, how often, on what."""

    batch: int = 64
    """Global batch size in samples."""
    kimg: float = 1000.0
    """Length in thousands of samples."""
    seed: int = 0
    """Root of all randomness: initial values, latents, data order."""
    mesh: tuple[int, int] = (0, 1)
    """Devices along ('data', 'patch'); 0: all that are left."""
    log_every: int = 50
    """Steps between status lines."""
    save_every: int = 1000
    """Steps between checkpoints."""
    sample_every: int = 1000
    """Steps between sample grids."""
    samples: int = 16
    """Images in a sample grid."""
    keep: int = 3
    """Checkpoints kept."""
    start: str = ""
    """A workdir whose networks this run begins from (post-training); its optimisers start anew."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config file's `config()` and `tiny()` return one of these."""

    model: Any
    """A system's own frozen dataclass, for instance `coco_gan.Config`; it has a method `system() -> System`."""
    data: Data = Data()
    run: Run = Run()
