"""An inversion on disk: the latent, the corrections and the activations of one photo, and which generator they belong to."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxgan.arrays import arrays_checksum, check_finite, read_safetensors
from jaxgan.files import write_atomic

if TYPE_CHECKING:
    from jaxgan.chains import Chain

FORMAT = "jaxgan inversion 1"
LATENT = "z"
"""The correction of the latent itself; ``latent`` has it in it."""


class Inversion(NamedTuple):
    """An inversion as it was read; all arrays float32."""

    latent: np.ndarray
    """[*chain.latent]: what the image is made from."""
    start: np.ndarray
    """[*chain.latent]: where the search began."""
    corrections: dict[str, np.ndarray]
    """{stage: [h, w, C]}, and 'z' where the latent was corrected."""
    activations: dict[str, np.ndarray]
    """{stage: [h, w, C]}: behind their corrections."""
    about: dict[str, Any]
    """What ``write`` was told: 'generator' (digest), 'family', 'method', 'photo', 'result', options."""


def write(path: Any, inversion: Inversion) -> None:
    """Writes one safetensors file, whole or not at all.

    Raises:
      ValueError: numbers that are not finite, or ``about`` without 'generator' and 'family'; nothing is written.
    """
    from safetensors.numpy import save

    if missing := [key for key in ("generator", "family") if key not in inversion.about]:
        raise ValueError(f"an inversion must say its {missing[0]}: put it into about")
    arrays = _named(inversion)
    check_finite(arrays, path)
    text = json.dumps(inversion.about, allow_nan=False)
    write_atomic(path, save(arrays, {"format": FORMAT, "about": text, "arrays_sha256": arrays_checksum(arrays)}))


def _named(inversion: Inversion) -> dict[str, np.ndarray]:
    arrays = {"latent": inversion.latent, "start": inversion.start}
    arrays |= {f"correction/{name}": array for name, array in inversion.corrections.items()}
    arrays |= {f"activation/{name}": array for name, array in inversion.activations.items()}
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def read(path: Any, chain: Chain | None = None) -> Inversion:
    """Reads a file of ``write``, or the ``inversion.safetensors`` of a folder.

    Args:
      chain: the generator that shall draw it; None takes an inversion of any.

    Raises:
      FileNotFoundError: no such file. ValueError: no inversion, a damaged one, or one of another generator.
    """
    path = Path(path).expanduser()
    path = path / "inversion.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file: name an inversion.safetensors of `jaxgan invert`, or its folder")
    arrays, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file, but no inversion: `jaxgan invert` writes those")
    if metadata.get("arrays_sha256") != arrays_checksum(arrays):
        raise ValueError(f"{path} is damaged: the sha256 of its arrays is not the recorded one")
    try:
        about = json.loads(metadata["about"])
        theirs = about["generator"]
        latent, start = arrays.pop("latent"), arrays.pop("start")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: what it says of itself cannot be read ({type(error).__name__} {error})") from error
    if chain is not None and theirs != chain.digest:
        raise ValueError(
            f"{path} belongs to another generator ({about['family']}, sha256 {str(theirs)[:12]}) than the one given ({chain.family}, "
            f"{chain.digest[:12]}): name the one that it was made with"
        )
    parts: Mapping[str, dict[str, np.ndarray]] = {"correction": {}, "activation": {}}
    for name, array in arrays.items():
        kind, _, layer = name.partition("/")
        if kind not in parts or not layer:
            raise ValueError(f"{path}: an inversion holds no array {name!r}")
        parts[kind][layer] = array
    return Inversion(latent, start, parts["correction"], parts["activation"], about)


def draw(run: Any, arrays: Any, latents: Any, corrections: Mapping[str, Any]) -> Any:
    """Images [N, H, W, C] of latents [N, *latent] and corrections {stage: [N, h, w, C]}; pure. The entry 'z' is not added again.

    ``run``: ``chain.run`` of the generator, with its ``arrays``.
    """
    import jax.numpy as jnp

    edits = {name: functools.partial(jnp.add, jnp.asarray(array)) for name, array in corrections.items() if name != LATENT}
    return run(arrays, latents, edits=edits)[0]
