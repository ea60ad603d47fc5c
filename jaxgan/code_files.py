"""Codes on disk: one extended code (W+), the noise that belongs to it, and which generator it is a code of; a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgan.arrays import arrays_checksum, check_finite, read_safetensors
from jaxgan.files import write_atomic
from jaxgan.style_generators import StyleGenerator

FORMAT = "jaxgan code 1"
_NEEDED = ("generator", "family", "rows", "w_size")


class Code(NamedTuple):
    """A code as it was read."""

    code: np.ndarray
    """float32 [rows, W]."""
    noise: dict[str, np.ndarray] | None
    """{name: [side, side]} where the noise was changed too; None: the generator's stored noise."""
    about: dict[str, Any]
    """What ``write_code`` was told: 'generator' (digest), 'family', 'resolution', 'rows', 'w_size', 'space', options."""


def about_generator(generator: StyleGenerator, **more: Any) -> dict[str, Any]:
    """What a code file must say of its generator, and ``more``, such as space='W+'."""
    own = {"generator": generator.digest, "family": generator.family, "resolution": generator.resolution}
    return own | {"rows": generator.rows, "w_size": generator.w_size} | more


def write_code(path: Any, code: Any, *, noise: Mapping[str, Any] | None = None, about: Mapping[str, Any]) -> None:
    """Writes one code, whole or not at all.

    Args:
      path: a local file or ``gs://``; an earlier one is replaced.
      code: [rows, W], finite.
      noise: {name: [side, side]}, where it is not the generator's stored noise.
      about: ``about_generator(generator, ...)``: plain JSON values.

    Raises:
      ValueError: a code that is not [rows, W] of its generator, or not finite; nothing is written.
    """
    from safetensors.numpy import save

    arrays = {"code": np.ascontiguousarray(code, np.float32)}
    arrays |= {f"noise/{name}": np.ascontiguousarray(array, np.float32) for name, array in (noise or {}).items()}
    if missing := [key for key in _NEEDED if key not in about]:
        raise ValueError(f"a code file must say its {missing[0]}: give about_generator(generator, ...)")
    _check_shapes(arrays, about, path)
    check_finite(arrays, path)
    text = json.dumps(dict(about), allow_nan=False)
    write_atomic(path, save(arrays, {"format": FORMAT, "about": text, "arrays_sha256": arrays_checksum(arrays)}))


def read_code(path: Any, generator: StyleGenerator | None = None) -> Code:
    """Reads a file of ``write_code``, or the ``code.safetensors`` of a folder.

    Args:
      generator: the one that shall draw it; None takes a code of any.

    Raises:
      FileNotFoundError: no such file. ValueError: no code file, a damaged one, or a code of another generator.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = path / "code.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file: name a code.safetensors of `jaxgan embed`, or its folder")
    arrays, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file, but no code: `jaxgan embed` and `jaxgan sample --codes` write those")
    if metadata.get("arrays_sha256") != arrays_checksum(arrays):
        raise ValueError(f"{path} is damaged: the sha256 of its arrays is not the recorded one")
    try:
        told = json.loads(metadata["about"])
        told["generator"], told["family"], told["rows"], told["w_size"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: what it says of its generator cannot be read ({type(error).__name__} {error})") from error
    if generator is not None:
        _check_generator(told, generator, path)
    _check_shapes(arrays, told, path)
    check_finite(arrays, path)
    noise = {name.removeprefix("noise/"): array for name, array in arrays.items() if name != "code"}
    if generator is not None and noise:
        _check_noise(noise, generator, path)
    return Code(arrays["code"], noise or None, told)


def places(place: Path, names: Sequence[str]) -> list[Path]:
    """The code of each name: `place` itself where it is a file (or holds code.safetensors), else NAME.safetensors or NAME/ below it."""
    if place.is_file() or (place / "code.safetensors").is_file():
        return [place] * len(names)
    return [place / f"{name}.safetensors" if (place / f"{name}.safetensors").is_file() else place / name for name in names]


def digest(code: Code) -> str:
    """sha256 of a code and its noise: 'arrays_sha256' in the metadata of its file."""
    return arrays_checksum({"code": code.code, **{f"noise/{name}": array for name, array in (code.noise or {}).items()}})


def _check_shapes(arrays: Mapping[str, np.ndarray], told: Mapping[str, Any], path: Any) -> None:
    expected = (told["rows"], told["w_size"])
    if "code" not in arrays or arrays["code"].shape != expected or arrays["code"].dtype != np.float32:
        there = f"{arrays['code'].dtype} {arrays['code'].shape}" if "code" in arrays else "absent"
        raise ValueError(f"{path}: the code is {there}; its generator takes float32 {expected} (rows, numbers in a row)")
    for name, array in arrays.items():
        if name != "code" and (not name.startswith("noise/") or array.ndim != 2 or array.dtype != np.float32):
            raise ValueError(
                f"{path}: {name} is {array.dtype} {array.shape}; beside the code there may only be noise maps, float32 [side, side]"
            )


def _check_generator(told: Mapping[str, Any], generator: StyleGenerator, path: Any) -> None:
    if told["generator"] == generator.digest:
        return
    own = about_generator(generator)
    made, given = (
        f"{a['family']} {a.get('resolution', '?')} px, {a['rows']} x {a['w_size']}, sha256 {str(a['generator'])[:12]}" for a in (told, own)
    )
    raise ValueError(
        f"{path} is a code of another generator ({made}) than the one given ({given}): name the generator that it was made with"
    )


def _check_noise(noise: Mapping[str, np.ndarray], generator: StyleGenerator, path: Any) -> None:
    there = {name: tuple(array.shape) for name, array in noise.items()}
    wanted = {name: tuple(array.shape) for name, array in generator.noise(generator.arrays).items()}
    if there != wanted:
        name = next(name for name in sorted(there.keys() | wanted.keys()) if there.get(name) != wanted.get(name))
        raise ValueError(f"{path}: noise {name} is {there.get(name, 'absent')}; the generator has {wanted.get(name, 'none of that name')}")
