"""Figures as a TFDS builder: whole clips as tensors with their identity, poses and masks, in array_record."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import numpy as np
from etils import epath

from jaxgan.data import builders, figures
from jaxgan.data.builders import tfds


@dataclasses.dataclass(eq=False)
class FiguresConfig(tfds.core.BuilderConfig):
    """One set of figures: its side in pixels, what they stand on, and how many clips it trains on."""

    size: int = 64
    ground: str = "plain"
    count: int = 2400


def split_counts(count: int) -> dict[str, int]:
    """Clips of each split beside `count` for training: in proportion to the identities, at least 8."""
    return {"train": count, **{split: max(8, count * figures.SPLITS[split] // figures.SPLITS["train"]) for split in ("validation", "test")}}


class Figures(tfds.core.GeneratorBasedBuilder):
    """`jaxgan.data.figures` as a dataset; record i is clip i."""

    VERSION = tfds.core.Version("1.1.0")
    BUILDER_CONFIGS: list = []
    url_infos: dict = {}

    def _info(self) -> tfds.core.DatasetInfo:
        size, frames = self.builder_config.size, figures.FRAMES
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Tensor(shape=(frames, size, size, 3), dtype=np.uint8),
                "mask": tfds.features.Tensor(shape=(frames, size, size), dtype=np.uint8),
                "identity": tfds.features.Tensor(shape=(len(figures.FACTORS),), dtype=np.int32),
                "pose": tfds.features.Tensor(shape=(frames, len(figures.POSE)), dtype=np.float32),
            }
        )
        return self.dataset_info_from_configs(
            features=features,
            description="Clips of figures drawn by code. Identity: " + ", ".join(f"{name} of {n}" for name, n in figures.FACTORS),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split, count) for split, count in split_counts(self.builder_config.count).items()}

    def _generate_examples(self, split: str, count: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        config, facts = self.builder_config, figures.facts(split, count)
        name = f"drawing {count:,} clips of figures of {config.size}x{config.size} ({split})"
        for i in builders.track(range(count), name, count):
            image, mask = figures.draw_clip(facts.identity[i], facts.pose[i], config.size, config.ground, int(facts.seeds[i]))
            yield i, {"image": image, "mask": mask.astype(np.uint8), "identity": facts.identity[i], "pose": facts.pose[i]}


def prepare_figures(root: str, size: int, ground: str, count: int) -> epath.Path:
    """Folder of the prepared set under `root`; draws it first where it is not there yet, whole or not at all, as `prepare_scenes` does.

    Raises OSError with the remedy where `root` cannot be written.
    """
    config = FiguresConfig(name=f"{size}-{ground}-{count}", size=size, ground=ground, count=count)
    home = epath.Path(root) / "figures" / config.name
    folder = home / str(Figures.VERSION)
    if builders.is_prepared(folder):
        return folder
    try:
        home.mkdir(parents=True, exist_ok=True)
        with builders._alone(home):
            if not builders.is_prepared(folder):
                with builders.quiet():
                    builder = Figures(data_dir=os.fspath(root), config=config, file_format="array_record")
                builders.generate(builder)
    except OSError as error:
        remedy = "make room there or name another folder with --data.root or $JAXGAN_DATA"
        raise OSError(f"figures cannot be prepared under {root}: {error}; {remedy}") from error
    return folder


def open_clips_of(folder: epath.Path, split: str):
    """The records of one split: ``records[i] -> {'image', 'mask', 'identity', 'pose'}``, numpy arrays."""
    builder = builders.tfds.builder_from_directory(folder)
    with builders.quiet():
        return builder.as_data_source(split=split)
