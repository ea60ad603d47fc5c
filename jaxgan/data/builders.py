"""TFDS builders that need no TensorFlow: Image features receive PNG bytes, records are array_record, order is kept.

Importing this module imports tensorflow_datasets (one second); `jaxgan.data.pipeline` does so only when a source is opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
import warnings
from collections.abc import Iterable, Iterator

from etils import epath

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow_datasets as tfds

from jaxgan.data import drawers
from jaxgan.data.scene_classes import CLASSES, without_words

TEST_SEED = 1
"""The held-out split is another world than the training split (seed 0), so no count makes them meet."""


@dataclasses.dataclass(eq=False)
class ScenesConfig(tfds.core.BuilderConfig):
    """One set of scenes: its size in pixels, whether it tiles sideways, how many images it trains on, and what is withheld."""

    height: int = 32
    width: int = 32
    periodic: bool = False
    count: int = 50_000
    without: tuple[str, ...] = ()


def scenes_config(height: int, width: int, periodic: bool, count: int, without: tuple[str, ...] = ()) -> ScenesConfig:
    """The config of a set; its name, and so its folder, holds every choice."""
    without = without_words(without)
    name = f"{height}x{width}{'-periodic' if periodic else ''}{''.join(f'-without-{word}' for word in without)}-{count}"
    return ScenesConfig(name=name, height=height, width=width, periodic=periodic, count=count, without=without)


def test_count(count: int) -> int:
    """Held-out images beside `count` training images: a tenth, at least 16 and at most 5,000."""
    return min(5000, max(16, count // 10))


class Scenes(tfds.core.GeneratorBasedBuilder):
    """`jaxgan.data.scenes` as a dataset: image, label map and index of each landscape; record i is scene i."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: list = []
    url_infos: dict = {}  # nothing is downloaded; without this TFDS looks for checksums beside the code

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(config.height, config.width, 3), encoding_format="png"),
                "label": tfds.features.Image(shape=(config.height, config.width, 1), encoding_format="png"),
            }
        )
        return self.dataset_info_from_configs(
            features=features,
            description="Landscapes drawn by code, each with its label map. Classes: " + ", ".join(CLASSES),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        count = self.builder_config.count
        return {"train": self._generate_examples(count, 0), "test": self._generate_examples(test_count(count), TEST_SEED)}

    def _generate_examples(self, count: int, seed: int) -> Iterator[tuple[int, dict[str, bytes]]]:
        config = self.builder_config
        pngs = drawers.draw_pngs(
            count,
            config.height,
            config.width,
            periodic=config.periodic,
            seed=seed,
            without=config.without,
            processes=drawers.processes_for(count),
        )
        name = f"drawing {count:,} scenes of {config.height}x{config.width}"
        for index, (image, label) in enumerate(track(pngs, name, count)):
            yield index, {"image": image, "label": label}


def track(items: Iterable, name: str, total: int) -> Iterator:
    """`items`, with a progress bar on stderr that leaves no trace when it ends."""
    from rich.console import Console
    from rich.progress import track as bar

    return bar(items, name, total=total, transient=True, console=Console(stderr=True))


def prepare_scenes(root: str, height: int, width: int, *, periodic: bool, count: int, without: tuple[str, ...] = ()) -> epath.Path:
    """Folder of the prepared set under `root`; draws it first where it is not there yet.

    A preparation is written beside its final name and renamed when whole, so one that was killed leaves nothing that reads as a set. On a
    local disk a second process waits for the first instead of drawing the same set. Raises OSError with the remedy where `root`
    cannot be written.
    """
    config = scenes_config(height, width, periodic, count, without)
    home = epath.Path(root) / "scenes" / config.name
    folder = home / str(Scenes.VERSION)
    if is_prepared(folder):
        return folder
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _alone(home):
            if not is_prepared(folder):
                with quiet():
                    builder = Scenes(data_dir=os.fspath(root), config=config, file_format="array_record")
                generate(builder)
    except OSError as error:
        remedy = "make room there or name another folder with --data.root or $JAXGAN_DATA"
        raise OSError(f"scenes cannot be prepared under {root}: {error}; {remedy}") from error
    return folder


def is_prepared(folder: epath.Path) -> bool:
    """Whether `folder` holds a whole TFDS set: the file written last is there."""
    return (folder / "dataset_info.json").exists() and (folder / "features.json").exists()


def generate(builder: tfds.core.DatasetBuilder) -> None:
    """Runs a builder of ours, silent but for our own bar on stderr, no server asked. Raises OSError on a full disk."""
    options = tfds.download.DownloadConfig(try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP)
    tfds.disable_progress_bar()
    with quiet(), contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download even where nothing is downloaded
        try:
            builder.download_and_prepare(download_config=options)
        except RuntimeError as error:
            if "write() failed" in str(error) or "Failed to finalize writing" in str(error):
                raise OSError(str(error)) from error  # array_record's form of a full disk
            raise


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """TFDS's and its libraries' warnings stay out of the console; they speak of TensorFlow and OpenCV, which are not needed here."""
    from absl import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)


@contextlib.contextmanager
def _alone(home: epath.Path) -> Iterator[None]:
    """Holds the lock of a local folder, and clears what killed preparations left in it. The kernel frees the lock when its holder dies."""
    if "://" in os.fspath(home):
        yield
        return
    import fcntl

    with open(home / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that prepares {home}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in home.glob("*incomplete*"):
            left.rmtree()
        yield
