"""The variables of published StyleGAN networks, by their TensorFlow names, as this library's trees.

Names are those of one network with its parts flattened: 'dlatent_avg', 'G_mapping/Dense0/weight', 'G_synthesis/4x4/Const/const', ... for
a generator; 'FromRGB_lod0/weight', '64x64/Conv1_down/bias', ... for a discriminator. Kernels stay raw and unturned (``Generator.fused``
says how they are read); what is permuted is what depends on channels-first order: the constant, the dense input, and the dense layer
behind the discriminator's 4 x 4 px.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxgan.nets import stylegan, stylegan_discriminator
from jaxgan.nets.stylegan import Generator
from jaxgan.nets.stylegan_discriminator import Discriminator

Variables = Mapping[str, np.ndarray]


class GeneratorArrays(NamedTuple):
    """A generator read from variables."""

    network: Generator
    params: dict[str, Any]
    state: dict[str, Any]
    lod: float
    """Level of detail at which it was saved; 0 for a finished network."""


class DiscriminatorArrays(NamedTuple):
    """A discriminator read from variables."""

    network: Discriminator
    params: dict[str, Any]
    lod: float


def generator_layout(variables: Variables, **switches: Any) -> Generator:
    """The static choices that names and shapes tell.

    Not told: ``fused`` ('auto') and ``scaling`` ('equalised'); a network without styles is taken to use pixel norm in place of instance
    norm. ``switches`` are fields of ``Generator`` that are known from elsewhere.

    Raises:
      ValueError: these are not the variables of a StyleGAN generator.
    """
    what = "StyleGAN generator"
    prefix = "G_synthesis/"
    four = _shape(variables, f"{prefix}4x4/Conv/weight", 4, what)
    widths = [four[3]]
    while f"{prefix}{(side := 4 << len(widths))}x{side}/Conv1/weight" in variables:
        widths.append(_shape(variables, f"{prefix}{side}x{side}/Conv1/weight", 4, what)[3])
    constant = f"{prefix}4x4/Const/const" in variables
    first = f"{prefix}4x4/{'Const' if constant else 'Dense'}"
    styles = f"{first}/StyleMod/weight" in variables
    layers = 0
    while f"G_mapping/Dense{layers}/weight" in variables:
        layers += 1
    if layers:
        shapes = [_shape(variables, f"G_mapping/Dense{i}/weight", 2, what) for i in range(layers)]
        inputs, hidden, w_size = shapes[0][0], shapes[0][1], shapes[-1][1]
    else:
        w_size = inputs = _shape(variables, f"{first}/{'StyleMod/' if styles else ''}weight", 2, what)[0]
        hidden = w_size
    labels, latent = 0, inputs
    if "G_mapping/LabelConcat/weight" in variables:
        labels, latent = _shape(variables, "G_mapping/LabelConcat/weight", 2, what)
    found = dict(
        widths=tuple(widths),
        latent_size=latent,
        w_size=w_size,
        mapping_width=hidden,
        mapping_layers=layers,
        label_size=labels,
        channels=_shape(variables, f"{prefix}ToRGB_lod0/weight", 4, what)[3],
        styles=styles,
        constant=constant,
        noise=f"{first}/Noise/weight" in variables,
        instance_norm=styles,
        pixel_norm=not styles,
    )
    return Generator(**(found | switches))


def discriminator_layout(variables: Variables, **switches: Any) -> Discriminator:
    """As ``generator_layout``. Not told: ``group`` (4), and a label size of 1 (taken as 0, which has the same shapes)."""
    what = "StyleGAN discriminator"
    inputs, least = _shape(variables, "4x4/Conv/weight", 4, what)[2:]
    widths = [least]
    while f"{(side := 4 << len(widths))}x{side}/Conv0/weight" in variables:
        widths.append(_shape(variables, f"{side}x{side}/Conv0/weight", 4, what)[2])
    dense, scores = _shape(variables, "4x4/Dense1/weight", 2, what)
    found = dict(
        widths=tuple(widths),
        dense_width=dense,
        label_size=scores if scores > 1 else 0,
        channels=_shape(variables, "FromRGB_lod0/weight", 4, what)[2],
        group=4 if inputs > least else 1,
        group_features=max(inputs - least, 1),
    )
    return Discriminator(**(found | switches))


def read_generator(variables: Variables, **switches: Any) -> GeneratorArrays:
    """A generator from its variables; ``switches`` as for ``generator_layout``. Arrays become float32.

    Raises:
      ValueError: a variable is missing, has another shape, or is not one of this network's.
    """
    network = generator_layout(variables, **switches)
    params = _fill("StyleGAN generator", variables, stylegan.layout(network), _generator_names(network))
    names = {"lod", "dlatent_avg", "G_synthesis/lod"} | {name for name, *_ in _generator_names(network)}
    state = {"w_avg": _array(variables["dlatent_avg"]) if "dlatent_avg" in variables else jnp.zeros((network.w_size,)), "noise": {}}
    if state["w_avg"].shape != (network.w_size,):
        raise ValueError(f"StyleGAN generator: dlatent_avg has shape {state['w_avg'].shape}; expected {(network.w_size,)}")
    for i in range(network.layers):
        name, side = f"G_synthesis/noise{i}", network.side(i)
        names.add(name)
        if network.noise:
            if _shape(variables, name, 4, "StyleGAN generator") != (1, 1, side, side):
                raise ValueError(f"StyleGAN generator: {name} has shape {np.shape(variables[name])}; expected {(1, 1, side, side)}")
            state["noise"][f"layer{i:02d}"] = _array(variables[name])[0, 0]
    _refuse_others("StyleGAN generator", variables, names)
    return GeneratorArrays(network, params, state, float(variables.get("lod", variables.get("G_synthesis/lod", 0.0))))


def read_discriminator(variables: Variables, **switches: Any) -> DiscriminatorArrays:
    """A discriminator from its variables; as ``read_generator``."""
    network = discriminator_layout(variables, **switches)
    names = list(_discriminator_names(network))
    params = _fill("StyleGAN discriminator", variables, stylegan_discriminator.layout(network), names)
    _refuse_others("StyleGAN discriminator", variables, {"lod"} | {name for name, *_ in names})
    return DiscriminatorArrays(network, params, float(variables.get("lod", 0.0)))


def generator_params(network: Generator, variables: Variables) -> dict[str, Any]:
    """The trained arrays alone, for variables that hold no others (gradients, for one)."""
    return _fill("StyleGAN generator", variables, stylegan.layout(network), _generator_names(network))


def discriminator_params(network: Discriminator, variables: Variables) -> dict[str, Any]:
    """As ``generator_params``."""
    return _fill("StyleGAN discriminator", variables, stylegan_discriminator.layout(network), _discriminator_names(network))


Name = tuple[str, tuple[str, ...], Callable[[np.ndarray], np.ndarray] | None]


def _generator_names(network: Generator) -> Iterator[Name]:
    """(variable, place in the tree, permutation or None)."""
    if network.label_size:
        yield "G_mapping/LabelConcat/weight", ("mapping", "label", "kernel"), None
    for i in range(network.mapping_layers):
        for theirs, ours in (("weight", "kernel"), ("bias", "bias")):
            yield f"G_mapping/Dense{i}/{theirs}", ("mapping", f"dense{i}", ours), None
    least = network.widths[0]
    for i in range(network.layers):
        side = network.side(i)
        module = "Conv1" if i % 2 else "Conv0_up"
        if side == 4:
            module = "Conv" if i else "Const" if network.constant else "Dense"
        prefix, place = f"G_synthesis/{side}x{side}/{module}", ("synthesis", f"layer{i:02d}")
        if i:
            yield f"{prefix}/weight", (*place, "kernel"), None
        elif network.constant:
            yield f"{prefix}/const", (*place, "constant"), lambda a: a[0].transpose(1, 2, 0)
        else:
            yield f"{prefix}/weight", (*place, "kernel"), lambda a: a.reshape(-1, least, 4, 4).transpose(0, 2, 3, 1).reshape(a.shape)
        yield f"{prefix}/bias", (*place, "bias"), None
        if network.noise:
            yield f"{prefix}/Noise/weight", (*place, "noise"), None
        if network.styles:
            yield f"{prefix}/StyleMod/weight", (*place, "style_kernel"), None
            yield f"{prefix}/StyleMod/bias", (*place, "style_bias"), None
    for i in range(len(network.widths)):
        lod = len(network.widths) - 1 - i
        for theirs, ours in (("weight", "kernel"), ("bias", "bias")):
            yield f"G_synthesis/ToRGB_lod{lod}/{theirs}", ("synthesis", f"rgb{4 << i}", ours), None


def _discriminator_names(network: Discriminator) -> Iterator[Name]:
    places = {"4x4/Conv": "conv4", "4x4/Dense0": "dense4", "4x4/Dense1": "score"}
    for i in range(len(network.widths)):
        side = 4 << i
        places[f"FromRGB_lod{len(network.widths) - 1 - i}"] = f"from_rgb{side}"
        if i:
            places[f"{side}x{side}/Conv0"] = f"conv{side}"
            places[f"{side}x{side}/Conv1_down"] = f"down{side}"
    least = network.widths[0]
    for theirs, ours in places.items():
        flatten = None
        if ours == "dense4":
            flatten = lambda a: a.reshape(least, 4, 4, -1).transpose(1, 2, 0, 3).reshape(a.shape)  # noqa: E731
        yield f"{theirs}/weight", (ours, "kernel"), flatten
        yield f"{theirs}/bias", (ours, "bias"), None


def _array(value: Any) -> Any:
    return jnp.asarray(np.asarray(value, np.float32))


def _shape(variables: Variables, name: str, axes: int, what: str) -> tuple[int, ...]:
    if name not in variables:
        raise ValueError(f"not the variables of a {what}: {name!r} is not among {', '.join(list(variables)[:4]) or 'no variables'} ...")
    shape = np.shape(variables[name])
    if len(shape) != axes:
        raise ValueError(f"{what}: {name} has shape {shape}; expected {axes} axes")
    return shape


def _fill(what: str, variables: Variables, layout: Any, names: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, place, permute in names:
        if name not in variables:
            raise ValueError(f"{what}: variable {name!r} is missing")
        leaf, branch = layout, tree
        for key in place:
            leaf = leaf[key]
        array = np.asarray(variables[name], np.float32)
        expected = (1, leaf.shape[2], 4, 4) if place[-1] == "constant" else leaf.shape
        if array.shape != expected:
            raise ValueError(f"{what}: {name} has shape {array.shape}; expected {expected}")
        for key in place[:-1]:
            branch = branch.setdefault(key, {})
        branch[place[-1]] = jnp.asarray(permute(array) if permute else array)
    for part in layout:  # a generator without mapping layers has an empty part
        tree.setdefault(part, {})
    return tree


def _refuse_others(what: str, variables: Variables, names: set[str]) -> None:
    others = sorted(set(variables) - names, key=lambda name: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", name)])
    if others:
        raise ValueError(f"{what}: {len(others)} variables are not this network's, the first is {others[0]!r}")
