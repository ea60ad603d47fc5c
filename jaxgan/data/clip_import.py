"""Folders of frames and video files become a set of clips once: cut to one length, cropped, resized, written whole or not at all.

The frames are whole ones, or squares around the boxes of a tracker (``jaxgan.data.tracks``).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgan.data import folders, tracks
from jaxgan.data.clips import Clips
from jaxgan.data.folders import Rejected, Settings
from jaxgan.data.frames import Frames

LENGTH = 16
"""Frames of a clip where nobody says."""
VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")


class ClipReport(NamedTuple):
    """What an import of clips did."""

    folder: str
    counts: dict[str, int]
    """Clips of each split."""
    size: tuple[int, int, int]
    """(H, W, 3) of a frame."""
    length: int
    """Frames of a clip."""
    checksum: str
    """SHA-256 over the pixels, in order."""
    rejects: dict[str, str]
    """Reason by video, relative to the source folder; with boxes by video and track."""
    seconds: float


class Video(NamedTuple):
    """What clips are cut from."""

    group: str
    """Videos of one group show the same subject."""
    read: Callable[[], Iterator[tuple[str, int, Any]]]
    """``read() -> (track, number of its first frame, frames uint8 [T, H, W, 3] or the Rejected that says why it is left out), ...``; one,
    without a name, where the whole frame is taken. Raises Rejected where the video is damaged."""


def import_clips(
    source_dir,
    out_dir,
    *,
    size: tuple[int, int],
    length: int | None = None,
    stride: int = 1,
    crop: str = "center",
    filter: str = "",
    alpha: str = "white",
    upscale: bool = False,
    max_pixels: int = 64_000_000,
    test_share: float = 0.0,
    boxes=None,
) -> ClipReport:
    """Imports every folder of images and every video file below `source_dir` as clips of `length` frames into a new folder `out_dir`.

    A folder's images are its frames, in the order of their names. Of every video each `stride`-th frame is taken and cut into clips without
    overlap; what is left at the end is dropped. Videos that share the first folder (or are alone) below `source_dir` are one group: its
    clips never supply each other's pose image and stay in one split. `boxes`: CSV files as ``tracks.read_boxes`` takes; then each track is
    cut into clips of the square around its box, and `crop` is not used. `source_dir` 'tfds:NAME': a prepared catalogue set in the place of
    a folder (``catalogue_clips.open_videos``), with its own splits where it has several. `length`: None for 16, of a turntable a whole
    turn. `filter`: empty for lanczos, with boxes and of catalogue sets for box (the mean over areas). `size`, `crop`, `alpha`, `upscale`,
    `max_pixels`, `test_share`: as in ``folders.import_folder``. A video that is damaged anywhere, and a video or track too short for one
    clip, are left out and named in the report. Raises FileNotFoundError, FileExistsError, ValueError and OSError; then nothing is left
    under the name `out_dir`.
    """
    from etils import epath

    listed = str(source_dir).startswith("tfds:")
    filter = filter or ("lanczos" if boxes is None and not listed else "box")
    settings = Settings(tuple(size), crop, filter, 3, alpha, upscale, max_pixels, test_share)
    folders.check(settings)
    if boxes is not None and size[0] != size[1]:
        raise ValueError(f"size is {size[0]}x{size[1]}, but boxes are cut out as squares; give one number")
    if boxes is not None and listed:
        raise ValueError(f"boxes belong to videos of your own, and {source_dir} has what is needed; leave --boxes out")
    if (length is not None and length < 2) or stride < 1:
        raise ValueError(f"length is {length} and stride is {stride}; a clip has at least 2 frames, every frame or each n-th is taken")
    out = epath.Path(out_dir).expanduser()
    source = str(source_dir) if listed else Path(source_dir).expanduser()
    if not listed and not source.is_dir():
        raise FileNotFoundError(f"there is no folder {os.fspath(source)!r} to import from")
    if out.exists():
        raise FileExistsError(f"{os.fspath(out)!r} exists already; name a new folder or remove that one first")
    if listed:
        from jaxgan.data import catalogue_clips

        splits, usual = catalogue_clips.open_videos(source, settings, stride)
        length = length or max(2, usual // stride)
    else:
        splits, length = {"train": _videos(source, settings, stride, boxes)}, length or LENGTH
    if len(splits) == 1:
        splits = _parted(*splits.values(), test_share)
    elif test_share:
        raise ValueError(f"test_share is {test_share}, but {source} has splits of its own ({', '.join(splits)}); leave it out")

    started = time.monotonic()
    rejects: dict[str, str] = {}
    digest = hashlib.sha256()
    total = len(splits["train"]) + len(splits.get("test", ())) if boxes is None and not listed else None
    with folders.building(out, rejects, total) as partial:
        made, groups = _write(partial, splits, settings, length, stride, rejects, digest)
        counts = {split: len(found) for split, found in groups.items()}
        report = ClipReport(os.fspath(out), counts, (*settings.size, 3), length, digest.hexdigest(), rejects, time.monotonic() - started)
        facts = {**report._asdict(), "stride": stride, "settings": settings.__dict__, "source": os.fspath(source), "groups": groups}
        folders.finish(made, out, facts, rejects)
    return report


def _parted(videos: dict[str, Video], test_share: float) -> dict[str, dict[str, Video]]:
    """Videos by split, train and where there are any test; a group stays together."""
    splits = {"train": {}, "test": {}}
    for name, video in videos.items():
        splits["test" if folders.share(video.group) < test_share else "train"][name] = video
    return {split: part for split, part in splits.items() if part or split == "train"}


def find_videos(source: Path) -> dict[str, list[str]]:
    """Frames' files by folder, and [] by video file, relative to `source`, in an order that does not depend on the file system."""
    found: dict[str, list[str]] = {}
    for name in folders.image_files(source):
        if os.path.dirname(name):
            found.setdefault(os.path.dirname(name), []).append(name)
    for top, _, names in os.walk(source):
        for name in names:
            if name.lower().endswith(VIDEOS) and not name.startswith("._"):
                found[os.path.relpath(os.path.join(top, name), source)] = []
    return dict(sorted(found.items()))


def group_of(name: str) -> str:
    """The first part of a video's path: its own name, or the folder of the subject that it shows."""
    return Path(name).parts[0]


def video_images(file: Path, settings: Settings) -> Iterator:
    """The frames of a video file, PIL images. Raises Rejected with what ffmpeg says of a damaged one, behind the last frame it gave."""
    import imageio_ffmpeg
    from PIL import Image

    # Frames come as PPM files in a row, which name their sizes; "file:" keeps a name from being read as an address.
    given = ["-nostdin", "-loglevel", "error", "-xerror", "-protocol_whitelist", "file", "-i", f"file:{file}"]
    asked = ["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
    count = 0
    with tempfile.TemporaryFile() as said:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), *given, *asked]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said)
        try:
            while (size := _ppm_size(process.stdout)) is not None:
                width, height = size
                if width * height > settings.max_pixels:
                    raise Rejected(f"{width}x{height} pixels are more than the limit of {settings.max_pixels:,} (--max-pixels)")
                data = process.stdout.read(width * height * 3)
                if len(data) == width * height * 3:
                    count += 1
                    yield Image.frombytes("RGB", size, data)
            status = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
        said.seek(0)
        words = " ".join(said.read().decode(errors="replace").split())
    if status or words or not count:
        raise Rejected(f"it cannot be read to its end, after {count} frames: {words[-200:] or 'it holds no frame'}")


def open_folder(source: str, split: str, image: tuple[int, int, int]) -> Clips:
    """The clips of one split of an imported folder. FileNotFoundError or ValueError with the remedy."""
    from etils import epath

    from jaxgan.data import builders

    if source.startswith("tfds:"):
        raise ValueError(
            f"data source {source!r}: clips of a catalogue set are made once, `jaxgan data import {source} OUT --clips --size {image[0]}`, "
            "and read from there; use --data.source OUT"
        )
    folder = epath.Path(source).expanduser()
    remedy = f"use 'figures', 'sprites:FOLDER', or `jaxgan data import FOLDER {source} --clips --size {image[0]}`"
    if not (folder / "dataset_info.json").exists() or not (folder / "facts.json").exists():
        what = "is not a folder" if not folder.is_dir() else "was not made by `jaxgan data import --clips`"
        raise FileNotFoundError(f"data source {source!r} {what}; {remedy}")
    facts = json.loads((folder / "facts.json").read_text())
    if "groups" not in facts:
        raise ValueError(f"{source} holds single images, and clips are needed; {remedy}")
    if tuple(facts["size"]) != tuple(image):
        found, wanted = ("x".join(map(str, shape)) for shape in (facts["size"], image))
        raise ValueError(
            f"{source} holds frames of {found}, the model wants {wanted}; import them again with --size, or change the model's"
        )
    if not facts["groups"].get(split):
        there = ", ".join(f"{name} ({len(groups):,})" for name, groups in facts["groups"].items())
        raise ValueError(f"there is no split {split!r} in {source}; it has: {there}")
    groups = facts["groups"][split]
    with builders.quiet():
        records = builders.tfds.builder_from_directory(folder).as_data_source(split=split)

    def load(i: int) -> tuple[np.ndarray, None]:
        try:
            return np.asarray(records[i]["image"]), None
        except RuntimeError as error:
            raise ValueError(f"the set {source} is damaged, clip {i} cannot be read; import it again ({error})") from error

    clips = Clips(
        load,
        np.full(len(groups), facts["length"]),
        image,
        name=source,
        digest=hashlib.sha256(f"{facts['checksum']}/{split}".encode()).hexdigest(),
        group=np.unique(groups, return_inverse=True)[1],
    )
    clips.frames(0), clips.frames(len(clips) - 1)  # a cut or missing file is found now, not in the first epoch
    return clips


def _ppm_size(stream) -> tuple[int, int] | None:
    """(width, height) of the PPM file that follows; None at the end."""
    if stream.readline().strip() != b"P6":
        return None
    width, height = map(int, stream.readline().split())
    stream.readline()
    return width, height


def _videos(source: Path, settings: Settings, stride: int, boxes) -> dict[str, Video]:
    """Every folder of images and every video file below `source`, by name, in order."""
    files = find_videos(source)
    if not files:
        known = ", ".join((*folders.SUFFIXES, *VIDEOS))
        raise ValueError(
            f"no folder of images and no video lies below {os.fspath(source)!r} (looked for {known}); give each clip its folder"
        )
    found = None if boxes is None else tracks.read_boxes(boxes, files)
    for name in found or ():
        if files[name]:  # how many frames a video file has shows at its end
            tracks.check_end(found[name], len(files[name]), name)

    def read(name: str) -> Iterator[tuple[str, int, Any]]:
        if found is None:
            images = _images(source, name, files[name][::stride], settings)
            if not files[name]:
                images = itertools.islice(images, 0, None, stride)
            whole = Frames()
            for image in images:
                whole.append(folders.framed(image, settings))
            yield "", 0, whole.stacked()
            return
        if name not in found:
            raise Rejected("there are no boxes of it")
        for track, frames in tracks.cut_out(_images(source, name, files[name], settings), found[name], settings, stride, name):
            yield track.name, track.first, frames

    return {name: Video(group_of(name), functools.partial(read, name)) for name in files}


def _images(source: Path, name: str, files: list[str], settings: Settings) -> Iterator:
    """The given frames of a folder, or all frames of a video file, as PIL images."""
    from etils import epath

    if not files:
        yield from video_images(source / name, settings)
    for file in files:
        try:
            yield folders.read_with(epath.Path(source) / file, settings, lambda image, _: image)
        except Rejected as error:
            raise Rejected(f"frame {os.path.basename(file)}: {error}") from None


def _write(partial, splits: dict[str, dict[str, Video]], settings, length, stride, rejects, digest):
    """Runs the TFDS builder inside `partial`; returns the folder it made and the groups of every split's clips, in order."""
    from jaxgan.data import builders

    tfds = builders.tfds
    groups: dict[str, list[str]] = {}

    def parts(name: str, video: Video) -> Iterator[tuple[str, int, np.ndarray]]:
        try:
            for track, first, frames in video.read():
                if not isinstance(frames, Rejected) and len(frames) < length:
                    taken = f"{len(frames)} frames" if stride == 1 else f"{len(frames)} frames at a stride of {stride}"
                    frames = Rejected(f"{taken} are fewer than the {length} of a clip (--length)")
                if not isinstance(frames, Rejected):
                    yield track, first, frames
                elif track:
                    rejects[f"{name}, track {track} from frame {first}"] = str(frames)
                else:
                    raise frames
        except Rejected as error:
            rejects[name] = str(error)

    def records(split: str, videos: dict[str, Video]) -> Iterator[tuple[int, dict[str, object]]]:
        groups[split], before = [], len(rejects)
        for name in builders.track(videos, f"importing {len(videos):,} videos ({split})", len(videos)):
            for track, begin, frames in parts(name, videos[name]):
                for first in range(0, len(frames) - length + 1, length):
                    clip = np.ascontiguousarray(frames[first : first + length])
                    digest.update(clip)
                    place = {"video": os.fsencode(name), "track": os.fsencode(track), "first": begin + first * stride}
                    yield len(groups[split]), {"image": clip, **place}
                    groups[split].append(videos[name].group)
        if not groups[split]:
            first = next(iter(list(rejects.items())[before:]), ("", "none was meant for it"))
            raise ValueError(f"all {len(videos)} videos for the split {split!r} were rejected, the first ({first[0]}) because: {first[1]}")
        if len(set(groups[split])) < 2:
            remedy = "a pose image comes from another group: give every subject its own folder or file"
            raise ValueError(f"all {len(groups[split])} clips of the split {split!r} are of one group ({groups[split][0]}); {remedy}")

    class ImportedClips(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Clips imported from folders of frames and video files."""

        VERSION = tfds.core.Version("1.0.0")
        url_infos: dict = {}
        pkg_dir_path = None

        def _info(self):
            image = tfds.features.Tensor(shape=(length, *settings.size, 3), dtype=np.uint8)
            rest = {"video": tfds.features.Text(), "track": tfds.features.Text(), "first": tfds.features.Scalar(np.int32)}
            features = tfds.features.FeaturesDict({"image": image, **rest})
            return tfds.core.DatasetInfo(builder=self, features=features, description=self.__doc__, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, videos) for split, videos in splits.items()}

        def _generate_examples(self, split, videos):
            return records(split, videos)

    with builders.quiet():
        builder = ImportedClips(data_dir=os.fspath(partial), file_format="array_record")
    builders.generate(builder)
    return builder.data_path, groups
