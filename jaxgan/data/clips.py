"""Clips: short videos of one thing each, in random access, with whatever is known of who it is and how it stands.

`open_clips` reads the set that a run names, `in_memory` makes one of arrays, `PairSource` draws two frames of a clip.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxgan import configure
from jaxgan.data import pipeline

Render = Callable[[Any, Any], tuple[np.ndarray, np.ndarray] | None]
FIGURE_CLIPS = 2400
"""Clips of figures for training where a run names no number: four of each identity."""


CACHE_BYTES = 2 << 30
"""Clips are kept in memory once read where the whole set takes at most this (the sprites for training: 1.2 GB)."""


class Clips:
    """Random access to clips whose frames have one size.

    ``load(i) -> (frames uint8 [T, H, W, 3], masks bool [T, H, W] or None)`` reads one clip. Clips are kept in memory once read, where all
    of them take at most ``CACHE_BYTES``; else the last one read is.
    """

    def __init__(
        self,
        load: Callable[[int], tuple[np.ndarray, np.ndarray | None]],
        lengths: np.ndarray,
        image: tuple[int, int, int],
        *,
        name: str,
        digest: str,
        group: np.ndarray,
        identity: np.ndarray | None = None,
        factors: tuple[tuple[str, int], ...] = (),
        pose: Callable[[int], np.ndarray] | None = None,
        pose_names: tuple[str, ...] = (),
        render: Render | None = None,
    ):
        self.image, self.name, self.digest = tuple(image), name, digest
        self.factors, self.pose_names = tuple(factors), tuple(pose_names)
        self.identity = None if identity is None else np.asarray(identity, np.int32)
        self.group = np.asarray(group, np.int32)
        self._load, self._lengths, self._pose, self._render = load, np.asarray(lengths, np.int64), pose, render
        self._keeps = int(self._lengths.sum()) * (int(np.prod(self.image)) + self.image[0] * self.image[1]) <= CACHE_BYTES
        self._kept: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}
        _check(self)

    def __len__(self) -> int:
        return len(self._lengths)

    def length(self, i: int) -> int:
        """Frames of clip i."""
        return int(self._lengths[i])

    def frame(self, i: int, t: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        return self._clip(i)[0][t]

    def frames(self, i: int) -> np.ndarray:
        """uint8 [T, H, W, 3]."""
        return self._clip(i)[0]

    def mask(self, i: int, t: int) -> np.ndarray | None:
        """bool [H, W], True on what the clip shows; None where that is not known."""
        masks = self._clip(i)[1]
        return None if masks is None else masks[t]

    def pose(self, i: int) -> np.ndarray | None:
        """float32 [T, P], in the order of ``pose_names``; None where poses are not known."""
        return None if self._pose is None else self._pose(int(i))

    def render(self, identity, pose) -> tuple[np.ndarray, np.ndarray] | None:
        """(uint8 [H, W, 3], bool [H, W]): this identity [F] in this pose [P]; None where that cannot be drawn."""
        return None if self._render is None else self._render(identity, pose)

    def _clip(self, i: int) -> tuple[np.ndarray, np.ndarray | None]:
        i = int(i)
        if not 0 <= i < len(self):
            raise IndexError(f"there is no clip {i} in {self.name}: it has {len(self)}")
        found = self._kept.get(i)
        if found is None:
            found = self._load(i)
            if found[0].shape != (self.length(i), *self.image):
                expected = (self.length(i), *self.image)
                raise ValueError(f"{self.name}: clip {i} is {found[0].shape}, expected {expected}; remove its folder and prepare it again")
            if not self._keeps:
                self._kept = {}
            self._kept[i] = found
        return found

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_kept": {}}  # a worker process keeps its own

    def __repr__(self) -> str:
        return f"Clips({self.name!r}, {len(self)} clips of {'x'.join(map(str, self.image))})"


def _check(clips: Clips) -> None:
    """Raises ValueError where no pair of frames, or no other identity, could be drawn from these clips."""
    if not len(clips):
        raise ValueError(f"{clips.name} holds no clips")
    short = np.flatnonzero(clips._lengths < 2)
    if len(short):
        remedy = "a clip must show the same thing twice; leave it out, or cut longer clips"
        raise ValueError(f"{clips.name}: clip {short[0]} has {clips.length(short[0])} frame ({len(short)} such clips): {remedy}")
    alone = len(np.unique(clips.group)) < 2
    if alone or (clips.identity is not None and len(np.unique(clips.identity, axis=0)) < 2):
        remedy = "nothing can be told apart or swapped; use clips of at least two, each with its own group"
        raise ValueError(f"{clips.name}: all {len(clips)} clips are of one identity: {remedy}")


def in_memory(
    frames: Any,
    identity: Any = None,
    pose: Any = None,
    factors: Sequence[tuple[str, int]] = (),
    pose_names: Sequence[str] = (),
    render: Render | None = None,
    group: Any = None,
    masks: Any = None,
    name: str = "clips in memory",
) -> Clips:
    """Clips of arrays.

    Args:
      frames: uint8 [n, T, H, W, 3].
      identity: whole numbers [n, F], with ``factors`` ((name, number of values), ...).
      pose: floats [n, T, P], with ``pose_names``.
      render: as ``Clips.render``.
      group: whole numbers [n]: clips of one group show the same video or subject. None: every clip is alone, or its identity where known.
      masks: bool [n, T, H, W].

    Raises:
      ValueError: arrays that do not fit each other, clips of one frame, one identity only.
    """
    frames = np.asarray(frames)
    if frames.ndim != 5 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames are {frames.dtype} {frames.shape}; expected uint8 [n, T, H, W, 3]")
    n, length = frames.shape[:2]
    identity = None if identity is None else np.asarray(identity, np.int32)
    pose = None if pose is None else np.asarray(pose, np.float32)
    masks = None if masks is None else np.asarray(masks, bool)
    if group is None:
        group = np.arange(n) if identity is None else np.unique(identity, axis=0, return_inverse=True)[1].reshape(-1)
    group = np.asarray(group, np.int32)
    expected = {"identity": (n, len(factors)), "pose": (n, length, len(pose_names)), "masks": frames.shape[:4], "group": (n,)}
    for key, array in (("identity", identity), ("pose", pose), ("masks", masks), ("group", group)):
        if array is not None and array.shape != expected[key]:
            raise ValueError(f"{key} has shape {array.shape}; it must be {expected[key]} for frames {frames.shape}")
    digest = hashlib.sha256(repr((frames.shape, factors, pose_names)).encode())
    for array in (frames, identity, pose, masks, group):
        digest.update(b"" if array is None else np.ascontiguousarray(array))
    return Clips(
        lambda i: (frames[i], None if masks is None else masks[i]),
        np.full(n, length),
        frames.shape[2:],
        name=name,
        digest=digest.hexdigest(),
        group=group,
        identity=identity,
        factors=tuple(factors),
        pose=None if pose is None else lambda i: pose[i],
        pose_names=tuple(pose_names),
        render=render,
    )


def names_clips(source: str) -> bool:
    """Whether this source is one of clips: figures, sprites, or a folder that was imported as clips."""
    from etils import epath

    if source == "figures" or source.startswith("sprites:"):
        return True
    facts = epath.Path(source).expanduser() / "facts.json"
    return not source.startswith("tfds:") and facts.exists() and "groups" in json.loads(facts.read_text())


def open_clips(data: configure.Data, image: tuple[int, int, int], *, drawn: bool = False) -> Clips:
    """The clips that `data` names, with frames of `image` = (H, W, 3).

    'figures' draws its set on first use (`drawn`: each clip when it is asked for, and nothing is written); 'sprites:FOLDER' reads the
    characters' layers there, at 64 pixels or a whole fraction of them; anything else is a folder that
    ``jaxgan data import FOLDER OUT --clips`` made. Raises ValueError, FileNotFoundError or OSError with the remedy.
    """
    if len(image) != 3 or image[2] != 3:
        raise ValueError(f"clips have 3 channels, the model wants {image}; set its channels to 3")
    if data.source == "figures":
        return _figures(data, image, drawn)
    if data.source.startswith("sprites:"):
        return _sprites(data, image)
    from jaxgan.data import clip_import

    return clip_import.open_folder(data.source, data.split, image)


def _figures(data: configure.Data, image: tuple[int, int, int], drawn: bool) -> Clips:
    from jaxgan.data import figures

    height, width, _ = image
    if height != width or height < 16:
        raise ValueError(f"figures are square and at least 16 pixels wide, the model wants {height}x{width}; change its size")
    if data.ground not in figures.GROUNDS:
        raise ValueError(f"data.ground is {data.ground!r}; figures stand on one of: {', '.join(figures.GROUNDS)}")
    if data.split not in figures.SPLITS:
        raise ValueError(f"there is no split {data.split!r} of figures; it has: {', '.join(figures.SPLITS)}")
    count = FIGURE_CLIPS if data.count in (0, configure.Data().count) else data.count
    if count < 2:
        raise ValueError(f"figures: count is {data.count}, but a set has at least 2 clips; use --data.count {FIGURE_CLIPS}")
    from jaxgan.data import clip_builders

    facts = figures.facts(data.split, clip_builders.split_counts(count)[data.split])
    name = f"figures/{height}-{data.ground}-{count}/{data.split}"

    def draw(i: int) -> tuple[np.ndarray, np.ndarray]:
        return figures.draw_clip(facts.identity[i], facts.pose[i], height, data.ground, int(facts.seeds[i]))

    def load(i: int) -> tuple[np.ndarray, np.ndarray]:
        try:
            record = records[i]
        except RuntimeError as error:
            raise ValueError(f"the set {name} is damaged, clip {i} cannot be read; remove {folder} ({error})") from error
        return np.asarray(record["image"]), np.asarray(record["mask"]).astype(bool)

    def render(identity, pose) -> tuple[np.ndarray, np.ndarray]:
        return figures.render(identity, pose, height, figures.even(data.ground, height))

    if not drawn:
        folder = clip_builders.prepare_figures(pipeline.data_root(data.root), height, data.ground, count)
        records = clip_builders.open_clips_of(folder, data.split)
    return Clips(
        draw if drawn else load,
        np.full(len(facts.identity), figures.FRAMES),
        image,
        name=name,
        digest=hashlib.sha256(f"{name}/{clip_builders.Figures.VERSION}".encode()).hexdigest(),
        group=np.unique(facts.identity, axis=0, return_inverse=True)[1].reshape(-1),
        identity=facts.identity,
        factors=figures.FACTORS,
        pose=lambda i: facts.pose[i],
        pose_names=figures.POSE,
        # Behind a swap stands one texture or the other: only on even ground is there one true picture.
        render=render if data.ground in figures.EVEN else None,
    )


def _sprites(data: configure.Data, image: tuple[int, int, int]) -> Clips:
    from jaxgan.data import sprites

    height, width, _ = image
    if height != width or sprites.SIDE % height:
        raise ValueError(
            f"sprites are {sprites.SIDE}x{sprites.SIDE}, or a whole fraction of it; the model wants {height}x{width}: change its size"
        )
    found = sprites.load(data.source.partition(":")[2], data.split)
    factor = sprites.SIDE // height
    poses = np.stack(np.meshgrid(*map(np.arange, (sprites.ACTIONS, sprites.DIRECTIONS, sprites.FRAMES)), indexing="ij"), -1)
    poses = poses.reshape(-1, sprites.FRAMES, 3).astype(np.float32)
    each = len(poses)

    def scaled(pictures: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if factor == 1:
            return pictures, masks
        blocks = pictures.reshape(*pictures.shape[:-3], height, factor, width, factor, 3).mean((-4, -2))
        covered = masks.reshape(*masks.shape[:-2], height, factor, width, factor).mean((-3, -1))
        return np.rint(blocks).astype(np.uint8), covered >= 0.5

    def load(i: int) -> tuple[np.ndarray, np.ndarray]:
        action, direction = poses[i % each, 0, :2].astype(int)
        return scaled(*sprites.compose(found.layers, found.characters[i // each], action, direction, slice(None)))

    def render(identity, pose) -> tuple[np.ndarray, np.ndarray]:
        return scaled(*sprites.compose(found.layers, identity, *(int(round(float(value))) for value in pose)))

    n = len(found.characters) * each
    return Clips(
        load,
        np.full(n, sprites.FRAMES),
        image,
        name=f"sprites/{data.split}",
        digest=hashlib.sha256(f"{found.digest}/{height}".encode()).hexdigest(),
        group=np.arange(n) // each,
        identity=found.characters[np.arange(n) // each],
        factors=sprites.FACTORS,
        pose=lambda i: poses[i % each],
        pose_names=sprites.POSE,
        render=render,
    )


class PairSource:
    """Two frames that show the same identity, drawn anew each time: a source for ``pipeline.batches``.

    ``draw(i, rng) -> {'image': uint8 [2, H, W, 3], 'group': int32 ()}``: the first frame is of clip i, the second of the same clip or, with
    ``within`` 'group', of any clip of its ``Clips.group``. `same`: the two may be one and the same frame. Frames of one clip share more
    than the identity, such as about where it stands; what they share can be learned as if it were the identity.

    Raises:
      ValueError: another ``within``, or 'group' where each clip is a group of its own.
    """

    def __init__(self, clips: Clips, same: bool = False, within: str = "clip"):
        if within not in ("clip", "group"):
            raise ValueError(f"pairs are {within!r}: give 'clip' or 'group'")
        self.clips, self.same, self.name = clips, same, clips.name
        self.image = (2, *clips.image)
        self._members = None
        if within == "group":
            groups = np.unique(clips.group)
            if len(groups) == len(clips):
                raise ValueError(f"{clips.name}: no two clips are of one group, so pairs within a group are none: give 'clip'")
            self._members = {int(group): np.flatnonzero(clips.group == group) for group in groups}

    def __len__(self) -> int:
        return len(self.clips)

    def draw(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        other = i if self._members is None else int(rng.choice(self._members[int(self.clips.group[i])]))
        if other == i:
            image = self.clips.frames(i)[rng.choice(self.clips.length(i), 2, replace=self.same)]
        else:
            image = np.stack([self.clips.frame(k, rng.integers(self.clips.length(k))) for k in (i, other)])
        return {"image": image, "group": np.asarray(self.clips.group[i], np.int32)}

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return self.draw(i, np.random.default_rng((0, int(i))))

    def __repr__(self) -> str:
        return f"PairSource({self.clips!r})"


def open_pairs(data: configure.Data, image: tuple[int, int, int], same: bool = False, within: str = "clip") -> PairSource:
    """`PairSource` of the clips that `data` names."""
    return PairSource(open_clips(data, image), same, within)
