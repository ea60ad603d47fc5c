"""Official StyleGAN pickles as generators: Gs, the running average, with the options that it was built with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan.arrays import check_finite
from jaxgan.nets.stylegan_variables import GeneratorArrays, read_generator
from jaxgan.systems.stylegan import Config
from jaxgan.weights.stylegan_files import Pickled, read_stylegan

_SIZES = ("resolution", "fmap_base", "fmap_decay", "fmap_max")
_SWITCHES = {
    "use_pixel_norm": "pixel_norm",
    "use_instance_norm": "instance_norm",
    "normalize_latents": "normalise_latents",
    "fused_scale": "fused",
}
"""Options that neither names nor shapes of the variables tell, by the field of ``nets.stylegan.Generator``."""
_FIXED = {
    "mapping_lrmul": 0.01,
    "mapping_nonlinearity": "lrelu",
    "nonlinearity": "lrelu",
    "dtype": "float32",
}
"""Options of which one value is computed here."""
_TOLD = ("num_channels", "latent_size", "dlatent_size", "label_size", "mapping_layers", "mapping_fmaps")
_TOLD += ("use_styles", "const_input_layer", "use_noise")
"""Options that the variables' names and shapes tell too."""
_FREE = (
    "truncation_psi",
    "truncation_cutoff",
    "truncation_psi_val",
    "truncation_cutoff_val",
    "dlatent_avg_beta",
    "style_mixing_prob",
    "randomize_noise",
    "structure",
)
_FREE += ("dlatent_broadcast", "is_training", "is_validation", "is_template_graph", "force_clean_graph", "func_name")
"""Options of training and of a single call."""


def import_file(path: str | Path) -> tuple[Config, dict[str, Any], dict[str, Any]]:
    """(config, params {'G'}, model {'G'}) of the generator Gs in an official pickle, of which nothing is run.

    Raises:
      ValueError: another file, a damaged one, an option that this library's StyleGAN lacks, or variables that do not fit each other.
      FileNotFoundError: no such file.
    """
    return import_network(read_stylegan(path).Gs, path)


def import_network(network: Pickled, path: Any) -> tuple[Config, dict[str, Any], dict[str, Any]]:
    """As ``import_file``, of a network that was read; ``path`` names it in errors."""
    options = dict(network.static_kwargs)
    for part in network.components.values():
        options |= part.static_kwargs
    variables = all_variables(network)
    check_finite(variables, path)
    try:
        read = read_generator(variables, **switches(options))
        config = configuration(read, options)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return config, {"G": read.params}, {"G": {**read.state, "lod": np.float32(read.lod)}}


def all_variables(network: Pickled) -> dict[str, np.ndarray]:
    """Its arrays by the names of ``nets.stylegan_variables``, whatever its parts were called."""
    found = dict(network.variables)
    for name, part in network.components.items():
        found |= {f"G_{name}/{local}": array for local, array in part.all_variables().items()}
    return found


def switches(options: dict[str, Any]) -> dict[str, Any]:
    """Fields of ``nets.stylegan.Generator`` that the options tell and the variables do not.

    Raises:
      ValueError: an option, or a value of one, that this library's StyleGAN lacks.
    """
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name in _SWITCHES:
            found[_SWITCHES[name]] = value
        elif name == "use_wscale":
            found["scaling"] = "equalised" if value else "initial"
        elif name == "blur_filter":
            if value is not None and list(value) not in ([], [1, 2, 1]):
                raise ValueError(f"it blurs with {list(value)}; StyleGAN's filter is [1, 2, 1]")
            found["blur"] = bool(value)
        elif name in _FIXED:
            if value != _FIXED[name]:
                raise ValueError(f"it was built with {name} {value!r}; only {_FIXED[name]!r} is computed here")
        elif name not in (*_SIZES, *_TOLD, *_FREE):
            raise ValueError(f"it was built with an option that StyleGAN (2019) does not have: {name} = {value!r}")
    return found


def configuration(read: GeneratorArrays, options: dict[str, Any]) -> Config:
    """The configuration of a generator that was read; training fields keep their defaults.

    Raises:
      ValueError: its channels are not those of its options.
    """
    network = read.network
    fields = {field.name: getattr(network, field.name) for field in dataclasses.fields(network) if field.name != "widths"}
    sizes = {name: options[name] for name in _SIZES if name in options} | {"resolution": network.resolution}
    mixing = options.get("style_mixing_prob", 0.9)
    config = Config(**fields, **sizes, mixing=float(mixing or 0.0), start=min(8, network.resolution))
    if options.get("resolution", network.resolution) != network.resolution or config.widths() != network.widths:
        asked = ", ".join(f"{name} {options[name]}" for name in _SIZES if name in options) or "the defaults"
        raise ValueError(
            f"its layers have {network.widths} channels at {network.resolution} px, which is not what its options say ({asked})"
        )
    return config
