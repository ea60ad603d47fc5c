"""Unified Perceptual Parsing as a segmenter: one label space for objects, materials and parts, preprocessing, and label maps.

The procedure is that of Bau et al., "Seeing What a GAN Cannot Generate", ICCV 2019. It needs the published weights of Xiao et al. (ECCV
2018): ``encoder_epoch_40.pth``, ``decoder_epoch_40.pth`` and ``labels.json`` in one folder. They were not at hand when this was written;
the merging of labels and the preprocessing are compared with values that the official program computed, the network is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.arrays import checksum
from jaxgan.nets import upernet
from jaxgan.nets.resampling import adaptive_pooling, bilinear, resample

MEAN = (102.9801, 115.9465, 122.7717)
"""Subtracted from 0..255, in the order blue, green, red."""
MAX_LABELS_BYTES = 10 * 2**20
FILES = (".pth", ".pt", ".safetensors", ".npz")


class LabelSpace(NamedTuple):
    """Ids of objects, materials and parts in one range: 0 is 'no label', then objects, then materials, then parts that are no objects."""

    names: tuple[str, ...]
    categories: tuple[str, ...]
    """'object', 'material' or 'part', for each name."""
    classes: dict[str, int]
    """Outputs of the network's heads, see ``upernet.units``."""
    owners: tuple[int, ...]
    """Ids of the objects that have parts."""
    parts: tuple[tuple[int, ...], ...]
    """For each owner, the id of each of its parts; the first is 0."""

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the object ids, 'no label' included: what the statistics count."""
        return self.names[: self.classes["object"]]


def label_space(labels: Mapping[str, Any], where: Any = "the labels file") -> LabelSpace:
    """The label space of a vocabulary (336 + 25 + 112 = 473 ids with the published one).

    A part that is also the name of an object has the object's id; a part of several owners has one id, given by its first owner.

    Args:
      labels: 'object', 'material', 'scene': lists of names, the first object and material being 'no label'; 'object_part': for each
        owner, in the order of the network's outputs, the list of its parts, the first being 'no label'.

    Raises:
      ValueError: an entry that is missing or no list of names, or an owner that is no object.
    """
    for kind in ("object", "material", "scene"):
        _check_names(labels.get(kind), f"{where}: {kind!r}")
    owned = labels.get("object_part")
    if not isinstance(owned, Mapping) or not owned:
        raise ValueError(f"{where}: 'object_part' must give a list of parts for each object that has parts")
    objects, materials = list(labels["object"]), list(labels["material"])
    object_ids = {name: k for k, name in enumerate(objects)}
    ids = dict(object_ids)
    own: list[str] = []
    parts, first = [], len(objects) + len(materials) - 1
    for owner, names in owned.items():
        if owner not in object_ids:
            raise ValueError(f"{where}: 'object_part' has the owner {owner!r}, which is not among the {len(objects)} objects")
        _check_names(names, f"{where}: the parts of {owner!r}")
        for name in names:
            if name not in ids:
                ids[name] = first + len(own)
                own.append(name)
        parts.append(tuple(ids[name] for name in names))
    classes = {"object": len(objects), "material": len(materials), "part": sum(map(len, parts)), "scene": len(labels["scene"])}
    categories = ["object"] * len(objects) + ["material"] * (len(materials) - 1) + ["part"] * len(own)
    owners = tuple(object_ids[owner] for owner in owned)
    return LabelSpace(tuple(objects + materials[1:] + own), tuple(categories), classes, owners, tuple(parts))


def _check_names(names: Any, what: str) -> None:
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{what} must be a list of names")


def read_labels(path: str | Path) -> LabelSpace:
    """``label_space`` of a JSON file. Raises FileNotFoundError; ValueError: not a JSON object, too large, or as ``label_space``."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: the label names of the network come from this file")
    if path.stat().st_size > MAX_LABELS_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; a labels file has at most {MAX_LABELS_BYTES:,}")
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(labels, dict):
        raise ValueError(f"{path} must hold a JSON object with the entries object, material, scene and object_part")
    return label_space(labels, path)


def network_input(pixels: jax.Array, size: int) -> jax.Array:
    """[N, H, W, 3] RGB float 0..255 -> [N, size, size, 3] BGR less the mean, by adaptive average pooling where the size differs."""
    x = pixels[..., ::-1] - jnp.asarray(MEAN, pixels.dtype)
    height, width = x.shape[1:3]
    return x if (height, width) == (size, size) else resample(x, adaptive_pooling(height, size), adaptive_pooling(width, size))


def split_parts(space: LabelSpace, part: jax.Array) -> list[jax.Array]:
    """The scores [..., parts] of each owner's own list, in the owners' order."""
    ends = np.cumsum([len(ids) for ids in space.parts])
    return [part[..., end - len(ids) : end] for ids, end in zip(space.parts, ends, strict=True)]


def probabilities(
    params: Mapping[str, jax.Array],
    space: LabelSpace,
    pixels: jax.Array,
    *,
    sizes: Sequence[int] = (256,),
    downsample: int = 1,
    heads: Sequence[str] = ("object", "material", "part"),
) -> dict[str, Any]:
    """Class probabilities, summed over ``sizes``.

    Scores are resized to the output's size, then softmaxed (parts: for each owner's own list), then added over the sizes.

    Args:
      pixels: [N, H, W, 3] RGB float 0..255.

    Returns:
      'object', 'material': [N, H // downsample, W // downsample, classes]; 'part': a list of such arrays, one for each owner.
    """
    height, width = (side // downsample for side in pixels.shape[1:3])
    total: dict[str, Any] = {}
    for size in sizes:
        scores = upernet.logits(params, network_input(pixels, size), heads)
        for head, x in scores.items():
            x = resample(x, bilinear(x.shape[1], height), bilinear(x.shape[2], width))
            found = [jax.nn.softmax(own, -1) for own in split_parts(space, x)] if head == "part" else jax.nn.softmax(x, -1)
            total[head] = found if head not in total else jax.tree.map(jnp.add, total[head], found)
    return total


def merge(space: LabelSpace, found: Mapping[str, Any]) -> jax.Array:
    """Label maps of the combined label space, from ``probabilities`` of all three heads.

    Returns:
      [N, h, w, 3] int32. Channel 0: the most probable object, 0 being possible. Channel 1: the most probable material, 0 or its id.
      Channel 2: where channel 0 is an object with parts, the most probable of its own parts; 0 elsewhere. Of equal scores the first wins.
    """
    objects = jnp.argmax(found["object"], -1).astype(jnp.int32)
    materials = jnp.argmax(found["material"], -1).astype(jnp.int32)
    materials = jnp.where(materials > 0, materials + (space.classes["object"] - 1), 0)
    parts = jnp.zeros_like(objects)
    for owner, ids, scores in zip(space.owners, space.parts, found["part"], strict=True):
        parts = jnp.where(objects == owner, jnp.asarray(ids, jnp.int32)[jnp.argmax(scores, -1)], parts)
    return jnp.stack([objects, materials, parts], -1)


def segment(params: Mapping[str, jax.Array], space: LabelSpace, pixels: jax.Array, **options: Any) -> jax.Array:
    """[N, H, W, 3] RGB uint8 or float 0..255 -> label maps [N, H // downsample, W // downsample, 3] int32 (``merge``); can be jitted.

    ``options``: ``sizes`` and ``downsample`` of ``probabilities``.
    """
    return merge(space, probabilities(params, space, pixels.astype(jnp.float32), **options))


def segment_objects(params: Mapping[str, jax.Array], space: LabelSpace, pixels: jax.Array, **options: Any) -> jax.Array:
    """Channel 0 of ``segment`` alone, [N, h, w]: the other heads are not computed."""
    found = probabilities(params, space, pixels.astype(jnp.float32), heads=("object",), **options)
    return jnp.argmax(found["object"], -1).astype(jnp.int32)


def read_network(folder: str | Path, layout: upernet.Layout = upernet.RELEASED) -> tuple[dict[str, np.ndarray], LabelSpace, str]:
    """Parameters, label space and sha256 (over the files' own sha256) from a folder with the published files.

    The folder holds ``labels.json`` and one file each whose name starts with ``encoder`` and with ``decoder`` (.pth, .pt, .safetensors or
    .npz: PyTorch state dicts with the published names).

    Raises:
      FileNotFoundError: no such folder, or not exactly one file of a kind.
      ValueError: as ``weights.read``, ``upernet.params``, ``read_labels``.
    """
    from jaxgan import weights

    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: give the one with encoder_epoch_40.pth, decoder_epoch_40.pth and labels.json")
    space = read_labels(folder / "labels.json")
    paths = []
    for kind in ("encoder", "decoder"):
        candidates = sorted(path for path in folder.iterdir() if path.name.startswith(kind) and path.suffix in FILES)
        if len(candidates) != 1:
            names = ", ".join(path.name for path in candidates) or "none"
            raise FileNotFoundError(f"{folder} must have one file {kind}*.pth (or {', '.join(FILES[1:])}); found: {names}")
        paths += candidates
    params = upernet.params(*(weights.read(path) for path in paths), space.classes, layout)
    identity = hashlib.sha256("".join(checksum(path) for path in (*paths, folder / "labels.json")).encode()).hexdigest()
    return params, space, identity


def open_upernet(
    spec: str | Path, *, sizes: Sequence[int] = (256,), downsample: int = 1, layout: upernet.Layout = upernet.RELEASED
) -> Any:
    """A ``jaxgan.segmenters.Segmenter`` whose label maps are the object ids.

    Args:
      spec: the folder of ``read_network``, with or without ``upernet:`` before it.
      sizes: side lengths at which the network sees each image; their probabilities are added.
      downsample: the label map is that much smaller than the image.

    Images are divided over the devices of this process. The probabilities of an image of 256 x 256 pixels, with the published vocabulary of
    336 objects, take 88 MB.

    Raises:
      FileNotFoundError, ValueError: as ``read_network``; sizes or downsample that are no positive numbers.
    """
    from jaxgan.segmenters import Segmenter, on_devices

    sizes = tuple(sizes)
    if not sizes or any(not isinstance(size, int) or not 32 <= size <= 4096 for size in sizes):
        raise ValueError(f"sizes {sizes} must be whole numbers from 32 to 4096, at least one")
    if not isinstance(downsample, int) or downsample < 1:
        raise ValueError(f"downsample {downsample!r} must be a whole number, at least 1")
    arrays, space, digest = read_network(str(spec).removeprefix("upernet:"), layout)
    run = on_devices(lambda params, pixels: segment_objects(params, space, pixels, sizes=sizes, downsample=downsample), arrays)

    def label(images: np.ndarray) -> np.ndarray:
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise ValueError(f"images are {images.dtype} {images.shape}; uint8 [N, H, W, 3] is wanted")
        if min(images.shape[1:3]) < downsample:
            raise ValueError(f"images of {images.shape[1]} x {images.shape[2]} pixels cannot be downsampled by {downsample}")
        return run(images)

    identity = hashlib.sha256(json.dumps([digest, sizes, downsample]).encode()).hexdigest()
    return Segmenter(name="upernet", classes=space.objects, label=label, size=None, identity=identity)
