"""Sets of the TFDS catalogue (celeb_a, lsun, ...): read where they are prepared, cropped and resized on the fly, with no TensorFlow.

Preparing one needs TensorFlow once, on any machine: the extra `jaxgan[tfds]`. The set is found by its folder, so its own code is not run.
"""

from __future__ import annotations

import dataclasses
import os
import re

import numpy as np

from jaxgan import configure
from jaxgan.data import pipeline
from jaxgan.data.framing import check_framing, frame

_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclasses.dataclass(frozen=True)
class Framing:
    """Turns a decoded PIL image into uint8 [H, W, C]; an object, so that a source can go to a worker process."""

    image: tuple[int, int, int]
    crop: str
    filter: str

    def __call__(self, picture) -> np.ndarray:
        picture = picture.convert({1: "L", 3: "RGB", 4: "RGBA"}[self.image[2]])
        return frame(picture, self.image[:2], self.crop, self.filter)


def open_catalogue(data: configure.Data, image: tuple[int, int, int]) -> pipeline.ImageSource:
    """The prepared set that ``data.source = 'tfds:NAME[/CONFIG]'`` names, its images cut by `data.crop` and resized by `data.filter`.

    Raises FileNotFoundError with the commands that prepare it, ValueError for a set without images or in a format that needs TensorFlow.
    """
    check_framing(data.crop, data.filter)
    if image[2] not in (1, 3, 4):
        raise ValueError(f"images have 1, 3 or 4 channels, not {image[2]}; change the model's channels")
    framing = Framing(tuple(image), data.crop, data.filter)
    return pipeline.ImageSource(pipeline.open_records(open_builder(data), data.split), image, frame=framing, name=data.source)


def open_builder(data: configure.Data):
    """TFDS's builder of the prepared set of images that ``data.source`` names; raises as `open_catalogue`."""
    from jaxgan.data import builders

    name = data.source.removeprefix("tfds:").strip("/")
    builder = open_prepared(name, data.root)
    features = builder.info.features
    if "image" not in features or not isinstance(features["image"], builders.tfds.features.Image):
        raise ValueError(f"{name} has no image feature called 'image'; it has: {', '.join(features)}")
    return builder


def open_prepared(name: str, root: str):
    """TFDS's builder of the prepared set NAME[/CONFIG]. FileNotFoundError with the commands that prepare it, or ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9_]+(/[A-Za-z0-9_.\-]+)?", name):
        raise ValueError(f"'tfds:{name}' does not name a catalogue set; write tfds:NAME or tfds:NAME/CONFIG, for instance tfds:celeb_a")
    folder = _find(name, root)
    from jaxgan.data import builders

    with builders.quiet():
        builder = builders.tfds.builder_from_directory(folder)
    stored = builder.info.file_format.value
    if stored != "array_record":
        raise ValueError(f"{folder} is stored as {stored}, which needs TensorFlow to read; prepare it again: {_command(name, root)}")
    return builder


def _homes(root: str) -> list[str]:
    homes = [pipeline.data_root(root)]
    if not root:  # where TFDS itself puts them
        homes.append(os.environ.get("TFDS_DATA_DIR") or os.path.expanduser("~/tensorflow_datasets"))
    return homes


def _find(name: str, root: str):
    """Folder of the newest version of a prepared set."""
    from etils import epath

    for home in _homes(root):
        top = epath.Path(home) / name
        if not top.is_dir():
            continue
        inside = [path.name for path in top.iterdir() if path.is_dir() and not path.name.startswith(".")]
        versions = [version for version in inside if _VERSION.fullmatch(version) and (top / version / "dataset_info.json").exists()]
        if versions:
            return top / max(versions, key=lambda version: tuple(map(int, version.split("."))))
        configs = sorted(inner for inner in inside if "incomplete" not in inner and not _VERSION.fullmatch(inner))
        if configs and "/" not in name:
            raise ValueError(f"{name} has several configs; name one of tfds:{name}/ followed by: {', '.join(configs)}")
    raise FileNotFoundError(
        f"catalogue set {name} is not prepared under {' or '.join(_homes(root))}; prepare it once, on a machine with a network: "
        f'pip install "jaxgan[tfds]" and then {_command(name, root)}'
    )


def _command(name: str, root: str) -> str:
    home = pipeline.data_root(root)
    call = f"tfds.builder('{name}', data_dir='{home}', file_format='array_record').download_and_prepare()"
    return f'python -c "import tensorflow_datasets as tfds; {call}"'
