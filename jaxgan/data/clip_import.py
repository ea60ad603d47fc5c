"""Folders of frames and video files become a set of clips once: cut to one length, cropped, resized, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgan.data import folders
from jaxgan.data.clips import Clips
from jaxgan.data.folders import Rejected, Settings

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
    """Reason by video, relative to the source folder."""
    seconds: float


def import_clips(
    source_dir,
    out_dir,
    *,
    size: tuple[int, int],
    length: int = 16,
    stride: int = 1,
    crop: str = "center",
    filter: str = "lanczos",
    alpha: str = "white",
    upscale: bool = False,
    max_pixels: int = 64_000_000,
    test_share: float = 0.0,
) -> ClipReport:
    """Imports every folder of images and every video file below `source_dir` as clips of `length` frames into a new folder `out_dir`.

    A folder's images are its frames, in the order of their names. Of every video each `stride`-th frame is taken and cut into clips without
    overlap; what is left at the end is dropped. Videos that share the first folder (or are alone) below `source_dir` are one group: its
    clips never supply each other's pose image and stay in one split. `size`, `crop`, `filter`, `alpha`, `upscale`, `max_pixels`,
    `test_share`: as in ``folders.import_folder``. A video that is damaged anywhere, or too short for one clip, is left out and named in the
    report. Raises FileNotFoundError, FileExistsError, ValueError and OSError; then nothing is left under the name `out_dir`.
    """
    from etils import epath

    settings = Settings(tuple(size), crop, filter, 3, alpha, upscale, max_pixels, test_share)
    folders.check(settings)
    if length < 2 or stride < 1:
        raise ValueError(f"length is {length} and stride is {stride}; a clip has at least 2 frames, every frame or each n-th is taken")
    source, out = Path(source_dir).expanduser(), epath.Path(out_dir).expanduser()
    if not source.is_dir():
        raise FileNotFoundError(f"there is no folder {os.fspath(source)!r} to import from")
    if out.exists():
        raise FileExistsError(f"{os.fspath(out)!r} exists already; name a new folder or remove that one first")
    videos = find_videos(source)
    if not videos:
        known = ", ".join((*folders.SUFFIXES, *VIDEOS))
        raise ValueError(
            f"no folder of images and no video lies below {os.fspath(source)!r} (looked for {known}); give each clip its folder"
        )
    splits = {"train": [name for name in videos if folders.share(group_of(name)) >= test_share]}
    splits["test"] = [name for name in videos if name not in set(splits["train"])]
    splits = {split: names for split, names in splits.items() if names or split == "train"}

    started = time.monotonic()
    rejects: dict[str, str] = {}
    digest = hashlib.sha256()
    with folders.building(out, rejects, len(videos)) as partial:
        made, groups = _write(partial, source, videos, splits, settings, length, stride, rejects, digest)
        counts = {split: len(found) for split, found in groups.items()}
        report = ClipReport(os.fspath(out), counts, (*settings.size, 3), length, digest.hexdigest(), rejects, time.monotonic() - started)
        facts = {**report._asdict(), "stride": stride, "settings": settings.__dict__, "source": os.fspath(source), "groups": groups}
        folders.finish(made, out, facts, rejects)
    return report


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


def read_video(file: Path, settings: Settings, stride: int = 1) -> np.ndarray:
    """Each `stride`-th frame of a video file, framed: uint8 [T, H, W, 3]. Raises Rejected with what ffmpeg says of a damaged one."""
    import imageio_ffmpeg
    from PIL import Image

    # Frames come as PPM files in a row, which name their sizes; "file:" keeps a name from being read as an address.
    given = ["-nostdin", "-loglevel", "error", "-xerror", "-protocol_whitelist", "file", "-i", f"file:{file}"]
    asked = ["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
    frames: list[np.ndarray] = []
    with tempfile.TemporaryFile() as said:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), *given, *asked]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said)
        try:
            number = 0
            while (size := _ppm_size(process.stdout)) is not None:
                width, height = size
                if width * height > settings.max_pixels:
                    raise Rejected(f"{width}x{height} pixels are more than the limit of {settings.max_pixels:,} (--max-pixels)")
                data = process.stdout.read(width * height * 3)
                if len(data) == width * height * 3 and number % stride == 0:
                    frames.append(folders.framed(Image.frombytes("RGB", size, data), settings))
                number += 1
            status = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
        said.seek(0)
        words = " ".join(said.read().decode(errors="replace").split())
    if status or words or not frames:
        raise Rejected(f"it cannot be read to its end, after {len(frames)} frames: {words[-200:] or 'it holds no frame'}")
    return np.stack(frames)


def open_folder(source: str, split: str, image: tuple[int, int, int]) -> Clips:
    """The clips of one split of an imported folder. FileNotFoundError or ValueError with the remedy."""
    from etils import epath

    from jaxgan.data import builders

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


def _frames(source: Path, name: str, files: list[str], settings: Settings, stride: int) -> np.ndarray:
    from etils import epath

    if not files:
        return read_video(source / name, settings, stride)
    frames = []
    for file in files[::stride]:
        try:
            frames.append(folders.read_image(epath.Path(source) / file, settings))
        except Rejected as error:
            raise Rejected(f"frame {os.path.basename(file)}: {error}") from None
    return np.stack(frames)


def _write(partial, source, videos, splits, settings, length, stride, rejects, digest):
    """Runs the TFDS builder inside `partial`; returns the folder it made and the groups of every split's clips, in order."""
    from jaxgan.data import builders

    tfds = builders.tfds
    groups: dict[str, list[str]] = {}

    def records(split: str, names: list[str]) -> Iterator[tuple[int, dict[str, object]]]:
        groups[split] = []
        for name in builders.track(names, f"importing {len(names):,} videos ({split})", len(names)):
            try:
                frames = _frames(source, name, videos[name], settings, stride)
                if len(frames) < length:
                    taken = f"{len(frames)} frames" if stride == 1 else f"{len(frames)} frames at a stride of {stride}"
                    raise Rejected(f"{taken} are fewer than the {length} of a clip (--length)")
            except Rejected as error:
                rejects[name] = str(error)
                continue
            for first in range(0, len(frames) - length + 1, length):
                clip = np.ascontiguousarray(frames[first : first + length])
                digest.update(clip)
                yield len(groups[split]), {"image": clip, "video": os.fsencode(name), "first": first * stride}
                groups[split].append(group_of(name))
        if not groups[split]:
            first = next(((name, rejects[name]) for name in names), ("", "none was meant for it"))
            raise ValueError(f"all {len(names)} videos for the split {split!r} were rejected, the first ({first[0]}) because: {first[1]}")
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
            rest = {"video": tfds.features.Text(), "first": tfds.features.Scalar(np.int32)}
            features = tfds.features.FeaturesDict({"image": image, **rest})
            return tfds.core.DatasetInfo(builder=self, features=features, description=self.__doc__, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, names) for split, names in splits.items()}

        def _generate_examples(self, split, names):
            return records(split, names)

    with builders.quiet():
        builder = ImportedClips(data_dir=os.fspath(partial), file_format="array_record")
    builders.generate(builder)
    return builder.data_path, groups
