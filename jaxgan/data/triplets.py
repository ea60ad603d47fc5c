"""Triplets of a clip: an image of who, an image of how, and the target that shows both.

Two frames of a clip are the identity image and the target; the pose image is a near neighbour of the target among frames of other clips
(Xiao, Liu, Lee, ICCV 2019). Gaps, the number of neighbours, the refusal of neighbours of the same colours and the quality gate are chosen
here.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxgan import configure, retrieval
from jaxgan.data.clips import Clips, open_clips


@dataclasses.dataclass(frozen=True)
class Triplets:
    """How triplets are made. ValueError for a value out of range."""

    features: str = "hog"
    """What neighbours are near in: 'hog', 'convnet' (VGG-16), 'encoder' (this run's own pose encoder, see `renew`); for comparison 'rgb',
    'luminance', 'random', 'oracle' (true poses), and 'none': the pose image is the target itself. 'encoder:WORKDIR' is that of another run
    as it is at the start, and not renewed: let that run be at its end, for a run goes on bitwise only with the same neighbours."""
    begin: str = "hog"
    """encoder only: the features of the first `renew` steps, in which the encoder is still warming up."""
    renew: int = 5000
    """encoder only: steps after which the neighbours are searched anew, by the averaged pose encoder as it is then."""
    neighbours: int = 8
    """Nearest frames looked at for each target."""
    gap_min: int = 2
    """Least distance in frames of identity image and target."""
    histogram: float = 0.7
    """Neighbours whose colours intersect the target's by more are dropped; 1: none is."""
    quality: float = 20.0
    """Percentile of each clip's scores below which a neighbour is dropped."""
    seed: int = 0
    """Of 'random' neighbours, and of the choice among equally near ones for 'oracle'."""
    weights: str = ""
    """convnet only: VGG-16's file; empty: where `jaxgan weights` keeps it."""

    def __post_init__(self):
        known = ", ".join((*retrieval.FEATURES, "encoder:WORKDIR"))
        if self.features not in ("none", "encoder") and not retrieval.is_known(self.features):
            raise ValueError(f"triplets.features is {self.features!r}; it must be one of: {known}, encoder, none")
        if not retrieval.is_known(self.begin):
            raise ValueError(f"triplets.begin is {self.begin!r}; before the encoder has learned, it must be one of: {known}")
        if self.renew < 1:
            raise ValueError(f"triplets.renew is {self.renew}: give the steps between two searches, at least 1")
        if self.neighbours < 1 or self.gap_min < 1:
            raise ValueError(f"triplets: neighbours is {self.neighbours} and gap_min is {self.gap_min}; both must be at least 1")
        if not 0 < self.histogram <= 1 or not 0 <= self.quality < 100:
            raise ValueError(f"triplets: histogram is {self.histogram} (above 0, at most 1), quality is {self.quality} (0 to below 100)")


class TripletSource:
    """Triplets drawn anew each time: a source for ``pipeline.batches``.

    ``draw(i, rng) -> {'image': uint8 [3, H, W, 3] (identity, pose, target), 'clip', 'pose_clip', 'gap': int32 ()}``. Its length is the
    number of clips that have a target with a neighbour left. `root`: as ``data.root``, where the index is kept. `index`: one that is there,
    `by` says of what; else it is that of ``settings.features``, for 'encoder' of ``settings.begin``.

    Raises:
      ValueError: clips too short for the least gap, or no neighbour left in any clip.
    """

    def __init__(
        self,
        clips: Clips,
        settings: Triplets = Triplets(),  # noqa: B008
        *,
        root: str = "",
        index: retrieval.Index | None = None,
        by: str = "",
    ):
        self.clips, self.settings, self.name = clips, settings, clips.name
        self.by = by or (settings.begin if settings.features == "encoder" else settings.features)
        """What the neighbours are near in, for people."""
        self.image = (3, *clips.image)
        lengths = np.array([clips.length(i) for i in range(len(clips))])
        if lengths.max() <= settings.gap_min:
            remedy = "lower triplets.gap_min or cut longer clips"
            raise ValueError(
                f"{clips.name}: the longest clip has {lengths.max()} frames, and a gap is at least {settings.gap_min}: {remedy}"
            )
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        self.clip_of = np.repeat(np.arange(len(clips)), lengths)
        if settings.features == "none":
            self.index, left = None, np.ones((self.starts[-1], 1), bool)
        else:
            self.index = index or retrieval.open_index(clips, self.by, settings.neighbours, settings.seed, settings.weights, root)
            left = self._left(self.index)
        self.left = left
        """bool [frames, K]: the neighbours that may be drawn."""
        usable = left.any(1)
        can = [i for i in range(len(clips)) if self._has_gap(usable[self.starts[i] : self.starts[i + 1]])]
        if not can:
            remedy = (
                "raise triplets.neighbours or triplets.histogram, lower triplets.quality, or use more clips of other groups and colours"
            )
            raise ValueError(f"{clips.name}: no clip has a target with a neighbour left after the exclusions; {remedy}")
        self.usable, self.members = usable, np.array(can)

    def __len__(self) -> int:
        return len(self.members)

    def draw(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        clip = int(self.members[int(i)])
        start, length = int(self.starts[clip]), self.clips.length(clip)
        usable = self.usable[start : start + length]
        # The gap is uniform over those that some target allows, then the target over those with that gap on either side.
        gaps = [gap for gap in range(self.settings.gap_min, length) if usable[gap:].any() or usable[:-gap].any()]
        gap = int(rng.choice(gaps))
        pairs = [(t, t - gap) for t in range(gap, length) if usable[t]] + [(t, t + gap) for t in range(length - gap) if usable[t]]
        target, other = pairs[int(rng.integers(len(pairs)))]
        frames = self.clips.frames(clip)
        if self.index is None:
            pose_clip, pose = clip, frames[target]
        else:
            choices = self.index.neighbours[start + target][self.left[start + target]]
            neighbour = int(rng.choice(choices))
            pose_clip = int(self.clip_of[neighbour])
            pose = self.clips.frame(pose_clip, neighbour - int(self.starts[pose_clip]))
        numbers = {"clip": clip, "pose_clip": pose_clip, "gap": gap}
        return {"image": np.stack([frames[other], pose, frames[target]]), **{key: np.asarray(n, np.int32) for key, n in numbers.items()}}

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return self.draw(i, np.random.default_rng((0, int(i))))

    def watch(self, epoch: int) -> dict[str, float]:
        """`guards` of triplets drawn anew for each epoch, under 'triplets/'."""
        return {f"triplets/{name}": value for name, value in guards(self, 200, epoch).items()}

    def __repr__(self) -> str:
        return f"TripletSource({self.clips!r}, {self.by})"

    def _left(self, index: retrieval.Index) -> np.ndarray:
        """Neighbours of other groups and other colours whose score reaches the clip's percentile: bool [frames, K]."""
        left = (index.neighbours >= 0) & (index.colours <= self.settings.histogram)
        if self.settings.features == "random":
            return left
        for i in range(len(self.clips)):
            block = slice(self.starts[i], self.starts[i + 1])
            if left[block].any():
                left[block] &= index.scores[block] >= np.percentile(index.scores[block][left[block]], self.settings.quality)
        return left

    def _has_gap(self, usable: np.ndarray) -> bool:
        gap = self.settings.gap_min
        return len(usable) > gap and bool(usable[gap:].any() or usable[:-gap].any())


def open_triplets(data: configure.Data, image: tuple[int, int, int], settings: Triplets = Triplets()) -> TripletSource:  # noqa: B008
    """`TripletSource` of the clips that `data` names; what `guards` say of it goes to stderr in one line, with a warning if need be."""
    source = TripletSource(open_clips(data, image), settings, root=data.root)
    print(told(source, guards(source, 200)), file=sys.stderr)
    return source


def renewed(
    source: TripletSource, describe: Callable[[np.ndarray], np.ndarray] | None, file: Any, by: str, keep: bool = True
) -> TripletSource:
    """Triplets of the same clips by other neighbours; what `guards` say of them goes to stderr in one line.

    Args:
      describe: what finds them (``retrieval.build_index``). None: the neighbours are those that `file` holds.
      file: where they are kept, whole or not at all; anything ``etils.epath`` takes.
      by: what they are near in, for people.
      keep: False: another process writes the file.

    Raises:
      ValueError: no neighbour is left in any clip. FileNotFoundError: the file does not hold the neighbours of these clips.
    """
    clips, settings = source.clips, source.settings
    if describe is None:
        index = retrieval.read_index(file, int(source.starts[-1]), settings.neighbours)
        if index is None:
            raise FileNotFoundError(
                f"{file} does not hold the neighbours by {by}, which this run goes on with: bring the file back from where the workdir "
                "came from, or go on from a checkpoint before that step (remove the later ones)"
            )
    else:
        index = retrieval.build_index(clips, describe, settings.neighbours)
    fresh = TripletSource(clips, settings, index=index, by=by)
    if describe is not None and keep:
        retrieval.save_index(file, index)
    print(told(fresh, guards(fresh, 200)), file=sys.stderr)
    return fresh


def told(source: TripletSource, found: dict[str, float]) -> str:
    """One line of what `guards` found."""
    settings = source.settings
    line = (
        f"triplets of {source.name} by {source.by}: {found['neighbours']:.1f} of {settings.neighbours} neighbours left, "
        f"{found['frames']:.0%} of the frames are targets, mean colour intersection {found['colours']:.2f}, "
        f"{found['same_pixels']:.1%} of the pose images are the target"
    )
    if found["same_pixels"] >= 0.01 and settings.features != "none":
        line += " (1% or more: copying the pose image pays; use other features, or clips that are less alike)"
    return line


def guards(source: TripletSource, n: int = 512, seed: int = 0) -> dict[str, float]:
    """What shows that a retrieval went wrong, from `n` triplets drawn with `seed`.

    'same_pixels': share of triplets whose pose image differs from the target by less than 0.02 in the mean, in [-1, 1] (want: below 0.01).
    'colours': mean intersection of their colours. 'neighbours': mean number that may be drawn, of those targets that have any.
    'frames': share of frames that may be targets. 'clips': share of clips that are used.
    """
    same = 0
    for k in range(n):
        rng = np.random.default_rng((seed, 11, k))
        _, pose, target = source.draw(int(rng.integers(len(source))), rng)["image"].astype(np.float32) / 127.5
        same += bool(abs(pose - target).mean() < 0.02)
    counts = source.left.sum(1)[source.usable]
    colours = 1.0 if source.index is None else float(source.index.colours[source.left].mean())
    return {
        "same_pixels": same / n,
        "colours": colours,
        "neighbours": float(counts.mean()),
        "frames": float(source.usable.mean()),
        "clips": len(source) / len(source.clips),
    }
