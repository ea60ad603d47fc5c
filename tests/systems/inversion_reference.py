"""The small networks of the published code's runs of layer inversion, from the files in `shared/golden`."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import chains
from jaxgan.nets import composed_encoder, progan
from jaxgan.nets.layers import convolve
from jaxgan.systems.layer_inversion_search import Perceptual
from jaxgan.weights import inversion_encoder_files


def read(shared, tag):
    with np.load(shared / "golden" / f"seeing_{tag}.npz") as file:
        return dict(file)


def nhwc(array):
    return np.moveaxis(array, 1, -1)


def generator(golden, dtype=np.float32):
    """The chain of 'gen/*'."""
    params = {}
    for name, array in golden.items():
        layer, kind = name.removeprefix("gen/").split(".", 1) if name.startswith("gen/") else ("", "")
        if kind:
            entry = params.setdefault("output" if layer.startswith("output") else layer, {})
            entry["kernel" if kind == "conv.weight" else "bias"] = array.astype(dtype)
    params = {name: {**p, "kernel": p["kernel"].transpose(2, 3, 1, 0)} for name, p in params.items()}
    network = progan.Generator(tuple(int(size) for size in golden["sizes"]))
    chain = chains.of_progan(network, jax.tree.map(lambda x: x.astype(np.float32), params), {}, "0" * 64)
    return chain._replace(arrays=progan.freeze(network, jax.tree.map(jnp.asarray, params))[1])


def encoder(golden, dtype=np.float32):
    """The composition of 'enc/*', by its running statistics."""
    found = inversion_encoder_files.composed(
        {name.removeprefix("enc/"): array for name, array in golden.items() if name.startswith("enc/")}, 128, 8, "the reference"
    )
    arrays = jax.tree.map(lambda array: jnp.asarray(np.asarray(array).astype(dtype)), (found.params, found.stats))

    def encode(arrays, images):
        return composed_encoder.apply(found.description, *arrays, images)[0]

    return SimpleNamespace(arrays=arrays, encode=encode)


def perceptual(golden, dtype=np.float32):
    """'percep/*': three convolutions with ReLUs, and halvings between them."""
    arrays = [
        (
            jnp.asarray(golden[f"percep/{i}.weight"].transpose(2, 3, 1, 0).astype(dtype)),
            jnp.asarray(golden[f"percep/{i}.bias"].astype(dtype)),
        )
        for i in (0, 5, 19)
    ]

    def maps(arrays, x):
        for i, (kernel, bias) in enumerate(arrays):
            if i:
                n, h, w, c = x.shape
                x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
            x = jax.nn.relu(convolve(x, kernel) + bias)
        return x

    return Perceptual(arrays, maps)
