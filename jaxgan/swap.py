"""`jaxgan swap`: who from one image, how from another: grids, films, ways between two codes, the codes themselves, and the table of scores.

Every sub-command takes the run of a system that learns the two codes (identity_pose, robust_disentangling) and a set of clips.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import configure, files, films, viz
from jaxgan.fitting import in_blocks
from jaxgan.generators import own_data
from jaxgan.swapping import Swapper, open_swapper

FORMAT = "jaxgan swap codes 1"


@dataclasses.dataclass(frozen=True)
class Options:
    out: str
    """What to write: a .png file (grid, drive, interpolate), a .safetensors file (codes), or a folder (evaluate)."""
    data: str = ""
    """Clips: figures, sprites:FOLDER, or a folder that `jaxgan data import` made of clips. Empty: the set that the run learned from."""
    split: str = "test"
    """Of the set."""
    count: int = 0
    """figures only: clips of the set; 0: as many as the run's set has."""
    ground: str = ""
    """figures only: plain, dark, clip or frame; empty: the ground that the run learned on."""
    root: str = ""
    """Folder of prepared sets; empty: $JAXGAN_DATA, else the user's cache folder."""
    seed: int = 1
    """Of what is drawn at random."""
    batch: int = 32
    """Images computed at once."""


@dataclasses.dataclass(frozen=True)
class Grid(Options):
    """Identities down, poses across; the images that they are of at the left and above."""

    identities: int = 6
    """Rows, from the first frames of clips drawn at random."""
    poses: int = 6
    """Columns, from frames of other clips."""
    verifiability: bool = False
    """Beside each image the map of how far its pixels can be traced back to the identity's image: black -1, white 1."""


@dataclasses.dataclass(frozen=True)
class Drive(Options):
    """The identity of one clip in the poses of another: above the driving frames, below what becomes of them."""

    identity: int = 0
    """Number of the clip whose first frame says who."""
    driver: int = 1
    """Number of the clip whose frames say how."""
    film: str = ""
    """NAME.mp4: identity, driving frame and result side by side."""
    fps: float = 8.0
    """Frames a second of the film."""


@dataclasses.dataclass(frozen=True)
class Interpolate(Options):
    """From the code of one clip's first frame to that of another's in equal steps, the other code held."""

    along: str = "both"
    """identity, pose, or both (a row for each)."""
    clips: tuple[int, int] = (0, 1)
    """Numbers of the two clips; what is held is of the first."""
    steps: int = 8
    """Images, both ends included."""


@dataclasses.dataclass(frozen=True)
class Codes(Options):
    """The codes of frames as one safetensors file: identity and pose as probes read them, clip and frame."""

    clips: int = 100
    """So many clips, the first ones."""
    frames: int = 8
    """First frames of each."""


@dataclasses.dataclass(frozen=True)
class Evaluate(Options):
    """The table of scores: DIR/scores.json and DIR/scores.txt."""

    n: int = 2000
    """Pairs of two clips."""
    judges: str = ""
    """Folder where the judges of a set are kept and found again; empty: the folder of the scores."""
    judge_steps: int = 5000
    """Training of judges that are not there yet; 0: no judges, and no figures of theirs."""
    probe_steps: int = 1000
    """Training of each probe; 0: none."""
    audit_steps: int = 2000
    """Training of the audit's estimator; 0: none."""
    audit_pairs: Literal["clip", "group"] = "clip"
    """The audit compares two frames of one clip, or of two clips of one figure."""


COMMANDS: dict[str, type] = {"grid": Grid, "drive": Drive, "interpolate": Interpolate, "codes": Codes, "evaluate": Evaluate}
_ENDINGS = {"grid": ".png", "drive": ".png", "interpolate": ".png", "codes": ".safetensors"}


def run(command: str, path: str, options: Any, say: Callable[[str], None] = lambda line: print(line, file=sys.stderr)) -> str:
    """Makes what a sub-command asks for of the run at ``path`` and returns what was written, in words.

    Raises:
      ValueError, FileNotFoundError, FileExistsError: before anything is written.
    """
    out = check(command, options)
    swapper, params, facts = open_swapper(path)
    clips = open_set(options, swapper, own_data(path))
    made = {"grid": grid, "drive": drive, "interpolate": interpolate, "codes": codes, "evaluate": evaluate}[command]
    return made(swapper, params, clips, options, out, facts, say)


def check(command: str, options: Any) -> Path:
    """Refuses numbers out of range and outputs that are there; the local path of the output."""
    for name in ("batch", "identities", "poses", "frames", "n"):
        if getattr(options, name, 1) < 1:
            raise ValueError(f"--{name} is {getattr(options, name)}: give at least 1")
    for name in ("judge_steps", "probe_steps", "audit_steps"):
        if getattr(options, name, 0) < 0:
            raise ValueError(f"--{name} is {getattr(options, name)}: give at least 0")
    if getattr(options, "steps", 2) < 2:
        raise ValueError(f"--steps is {options.steps}: give at least 2, both ends")
    if getattr(options, "along", "both") not in ("both", "identity", "pose"):
        raise ValueError(f"--along is {options.along}: identity, pose or both")
    out = files.local_folder(options.out)
    if command == "evaluate":
        if out.exists() and not out.is_dir():
            raise FileExistsError(f"--out is {options.out}, which is a file: name the folder for the scores")
        return out
    outputs = [out]
    if out.suffix != _ENDINGS[command]:
        raise ValueError(f"--out is {options.out}: name a {_ENDINGS[command]} file")
    if getattr(options, "film", ""):
        outputs.append(films.check_film(options.film, options.fps))
    for output in outputs:
        if output.exists():
            raise FileExistsError(f"{output} exists: name another file, or remove it first")
    return out


def open_set(options: Any, swapper: Swapper, own: configure.Data | None = None) -> Any:
    """The clips of these options, of the swapper's size; ValueError or FileNotFoundError where they do not serve.

    ``own``: what the run learned from, which stands for what the options leave open of that set; None: figures on plain ground.
    """
    if own is None or options.data not in ("", own.source):
        own = configure.Data(source=options.data or "figures")
    given = {name: getattr(options, name) for name in ("count", "ground", "root") if getattr(options, name)}
    return open_sized(dataclasses.replace(own, split=options.split, **given), swapper.size)


def open_sized(data: configure.Data, size: int) -> Any:
    """The clips that ``data`` names; ValueError where their frames are not ``size`` pixels wide and high."""
    from jaxgan.data import clips as sets

    clips = sets.open_clips(data, (size, size, 3))
    if tuple(clips.image[:2]) != (size, size):
        raise ValueError(f"clips of {data.source} have {clips.image[0]}x{clips.image[1]} px and the run takes {size}: import them so")
    return clips


def _signed(images: Any) -> jax.Array:
    return jnp.asarray(images).astype(jnp.float32) / 127.5 - 1.0


def encode(swapper: Swapper, params: Any, part: str, images: np.ndarray, batch: int) -> Any:
    """Codes of images uint8 [n, S, S, 3], on the host; ``part``: 'identity' or 'pose'."""
    function = jax.jit(lambda params, images: getattr(swapper, part)(params, _signed(images)))
    return in_blocks(functools.partial(function, params), images, block=batch)


def decode(swapper: Swapper, params: Any, identity: Any, pose: Any, batch: int) -> np.ndarray:
    """uint8 [n, S, S, 3] of codes with n rows each."""
    return viz.to_uint8(in_blocks(functools.partial(jax.jit(swapper.decode), params), identity, pose, block=batch))


def take(code: Any, rows: Any) -> Any:
    """These rows of a code."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[np.asarray(rows)], code)


def chosen(clips: Any, identities: int, poses: int, seed: int) -> tuple[list[int], list[int]]:
    """Clips that say who and others that say how; ValueError where the set has too few."""
    if identities + poses > len(clips):
        raise ValueError(f"{identities} identities and {poses} poses of {len(clips)} clips: ask for fewer, or for another --split")
    order = np.random.default_rng((seed, 4)).permutation(len(clips))
    return [int(i) for i in order[:identities]], [int(i) for i in order[identities : identities + poses]]


def grid(swapper: Swapper, params: Any, clips: Any, options: Grid, out: Path, facts: Any, say: Any) -> str:
    """A table of images: the corner is white."""
    if options.verifiability and swapper.trace is None:
        raise ValueError(f"--verifiability: the family {facts['family']} traces no pixels; runs of identity_pose do")
    rows, columns = chosen(clips, options.identities, options.poses, options.seed)
    rng = np.random.default_rng((options.seed, 5))
    who = np.stack([clips.frame(i, 0) for i in rows])
    how = np.stack([clips.frame(j, int(rng.integers(0, clips.length(j)))) for j in columns])
    down, across = np.repeat(np.arange(len(rows)), len(columns)), np.tile(np.arange(len(columns)), len(rows))
    identity, pose = (encode(swapper, params, part, images, options.batch) for part, images in (("identity", who), ("pose", how)))
    made = decode(swapper, params, take(identity, down), take(pose, across), options.batch)
    white = np.full((1, *who.shape[1:]), 255, np.uint8)
    if options.verifiability:
        made = np.concatenate([made, score_maps(swapper, params, made, who[down], options.batch)], 2)
        white = np.concatenate([white, white], 2)
        who, how = (np.concatenate([images, np.full_like(images, 255)], 2) for images in (who, how))
    body = made.reshape(len(rows), len(columns), *made.shape[1:])
    table = [white, how, *(part for i in range(len(rows)) for part in (who[i : i + 1], body[i]))]
    viz.write_png(out, viz.grid(np.concatenate(table), len(columns) + 1))
    return f"{out}: {len(rows)} identities (left) in {len(columns)} poses (above), {_said(facts)}"


def score_maps(swapper: Swapper, params: Any, made: np.ndarray, reference: np.ndarray, batch: int) -> np.ndarray:
    """Verifiability of every pixel as grey images uint8 [n, S, S, 3]: black -1, white 1."""
    function = jax.jit(lambda params, a, b: swapper.trace(params, _signed(a), _signed(b))["score"])
    score = viz.to_uint8(np.clip(in_blocks(functools.partial(function, params), made, reference, block=batch), -1, 1))
    times = swapper.size // score.shape[1]
    return np.repeat(score.repeat(times, 1).repeat(times, 2)[..., None], 3, -1)


def drive(swapper: Swapper, params: Any, clips: Any, options: Drive, out: Path, facts: Any, say: Any) -> str:
    """A strip, and a film where one is asked for."""
    _check_clips(clips, {"identity": options.identity, "driver": options.driver})
    if options.film and swapper.size % 2:
        raise ValueError(f"--film: images of {swapper.size} px a side; H.264 needs even sides")
    who, how = clips.frame(options.identity, 0), clips.frames(options.driver)
    identity, pose = (encode(swapper, params, part, images, options.batch) for part, images in (("identity", who[None]), ("pose", how)))
    made = decode(swapper, params, take(identity, np.zeros(len(how), int)), pose, options.batch)
    white = np.full_like(who[None], 255)
    viz.write_png(out, viz.grid(np.concatenate([white, how, who[None], made]), len(how) + 1))
    written = [f"{out}: clip {options.identity} in the {len(how)} poses of clip {options.driver}, {_said(facts)}"]
    if options.film:

        def frames() -> Iterator[np.ndarray]:
            for driving, result in zip(how, made, strict=True):
                yield viz.strip([who, driving, result])

        count = films.write_film(options.film, frames(), options.fps)
        written.append(f"{options.film}: {count} frames, {count / options.fps:.1f} s")
    return "\n".join(written)


def interpolate(swapper: Swapper, params: Any, clips: Any, options: Interpolate, out: Path, facts: Any, say: Any) -> str:
    """Straight lines between two codes."""
    _check_clips(clips, {"clips": max(options.clips), "clips ": min(options.clips)})
    ends = np.stack([clips.frame(i, 0) for i in options.clips])
    codes = {part: encode(swapper, params, part, ends, options.batch) for part in ("identity", "pose")}
    shares = np.linspace(0, 1, options.steps, dtype=np.float32)
    still = np.zeros(options.steps, int)
    parts = ("identity", "pose") if options.along == "both" else (options.along,)
    made = []
    for part in parts:
        way = {name: _line(code, shares) if name == part else take(code, still) for name, code in codes.items()}
        made.append(decode(swapper, params, way["identity"], way["pose"], options.batch))
    viz.write_png(out, viz.grid(np.concatenate(made), options.steps))
    return f"{out}: clip {options.clips[0]} to clip {options.clips[1]}, a row along {' and one along '.join(parts)}, {_said(facts)}"


def _line(code: Any, shares: np.ndarray) -> Any:
    return jax.tree.map(lambda leaf: np.stack([(1 - share) * leaf[0] + share * leaf[1] for share in shares]), code)


def codes(swapper: Swapper, params: Any, clips: Any, options: Codes, out: Path, facts: Any, say: Any) -> str:
    """'identity' [n, e], 'pose' [n, d], 'clip' and 'frame' int32 [n]; the metadata say of which run and set."""
    from safetensors.numpy import save

    places = [(i, t) for i in range(min(options.clips, len(clips))) for t in range(min(options.frames, clips.length(i)))]
    images = np.stack([clips.frame(i, t) for i, t in places])
    arrays = {}
    for part, vector in (("identity", swapper.identity_vector), ("pose", swapper.pose_vector)):
        function = jax.jit(lambda params, images, part=part, vector=vector: vector(getattr(swapper, part)(params, _signed(images))))
        found = in_blocks(functools.partial(function, params), images, block=options.batch)
        arrays[part] = np.ascontiguousarray(found, np.float32)
    clip, frame = np.array(places, np.int32).T
    arrays |= {"clip": np.ascontiguousarray(clip), "frame": np.ascontiguousarray(frame)}
    about = {**facts, "set": clips.name, "set digest": clips.digest}
    files.write_atomic(out, save(arrays, {"format": FORMAT, "about": json.dumps(about)}))
    sizes = f"identity {arrays['identity'].shape[1]}, pose {arrays['pose'].shape[1]} numbers"
    return f"{out}: codes of {len(images)} frames ({sizes}), {_said(facts)}"


def evaluate(swapper: Swapper, params: Any, clips: Any, options: Evaluate, out: Path, facts: Any, say: Any) -> str:
    """Trains the judges where they are not there yet, and writes the scores."""
    from jaxgan import judges, swap_scores

    swap_scores.check_audit(clips, options.audit_pairs if options.audit_steps else "clip")
    files.check_writable(out, 2**24, files.Refusal("the scores need", "or name another disk", "name a folder that can be written"))
    known = None
    if options.judge_steps > 0 and swap_scores.drawable(clips):
        known = judges.kept(options.judges or out, clips, steps=options.judge_steps, say=say)
    given = {name: getattr(options, name) for name in ("n", "seed", "batch", "probe_steps", "audit_steps", "audit_pairs")}
    result = swap_scores.evaluate(swapper, params, clips, known, **given, facts=facts, say=say)
    text = swap_scores.to_text(result)
    files.write_atomic(out / "scores.txt", (text + "\n").encode())
    files.write_atomic(out / "scores.json", (json.dumps(swap_scores.plain(result), indent=1, allow_nan=False) + "\n").encode())
    return f"{text}\n\nscores: {out / 'scores.json'}"


def _check_clips(clips: Any, numbers: dict[str, int]) -> None:
    for name, number in numbers.items():
        if not 0 <= number < len(clips):
            raise ValueError(f"--{name.strip()} is {number}: the set has the clips 0 to {len(clips) - 1}")


def _said(facts: dict[str, Any]) -> str:
    return f"{facts['family']}" + (f" at step {facts['step']:,}" if facts["step"] is not None else "")
