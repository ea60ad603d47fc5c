"""A state dict of published encoders as the encoder of a generator of the same sizes."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxgan import chains
from jaxgan.nets import composed_encoder, progan
from jaxgan.systems.layer_inversion import Config, open_encoder
from jaxgan.weights.inversion_encoder_files import image_name, layer_name

COMPILER = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def generator(*sizes):
    network = progan.Generator(sizes)
    shapes = jax.eval_shape(lambda: progan.init(network, jax.random.key(0)))
    return chains.of_progan(network, *jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes), "0" * 64)


@pytest.fixture(scope="module")
def chain():
    return generator(6, 6, 6, 5)


@pytest.fixture(scope="module")
def composed(chain):
    return Config("any", widths=(2, 2, 3, 4)).composed(chain)


@pytest.fixture(scope="module")
def trees(composed):
    shapes = jax.eval_shape(lambda: composed_encoder.init(composed, jax.random.key(0)))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.uniform(0.1, 1, leaf.shape).astype(np.float32), shapes)


@pytest.fixture
def file(trees, tmp_path):
    found = {}
    for tree in trees:
        for name, parts in tree.items():
            prefix, name_of = ("resnet.", image_name) if name == "image" else (f"inv{name[5:]}.", layer_name)
            for module, leaves in parts.items():
                for part, leaf in leaves.items():
                    found[prefix + name_of((module, part))] = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf
    np.savez(tmp_path / "church.npz", **found)
    return tmp_path / "church.npz"


def test_a_file_encodes_as_its_trees_do(chain, composed, trees, file):
    encoder = open_encoder(file, chain)
    assert encoder.names == ("layer4", "layer3", "layer2", "layer1", "z") and encoder.image == (16, 16, 3) and encoder.step == 0
    images = np.random.default_rng(1).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)

    def compute(arrays, trees, images):
        return encoder.encode(arrays, images), composed_encoder.apply(composed, *trees, images)[0]

    found, expected = jax.jit(compute, compiler_options=COMPILER)(encoder.arrays, trees, images)
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    with pytest.raises(ValueError, match=r"images of shape \(2, 8, 8, 3\)"):
        encoder.encode(encoder.arrays, images[:, :8, :8])


def test_generators_of_other_sizes_or_families_are_refused(chain, file):
    with pytest.raises(ValueError, match="layer4 6 -> 6, .*; this one needs image -> 7, layer4 7 -> 7"):
        open_encoder(file, generator(6, 6, 7, 5))
    with pytest.raises(ValueError, match=r"progressive GANs \(progan\), not for stylegan"):
        open_encoder(file, chain._replace(family="stylegan"))
    with pytest.raises(FileNotFoundError):
        open_encoder(file.with_name("no.npz"), chain)


def test_a_part_of_the_encoders_is_refused(chain, file):
    with np.load(file) as arrays:
        np.savez(
            file.with_name("image.npz"), **{name.removeprefix("resnet."): arrays[name] for name in arrays if name.startswith("resnet.")}
        )
        np.savez(file.with_name("layer.npz"), **{name.removeprefix("inv4."): arrays[name] for name in arrays if name.startswith("inv4.")})
    with pytest.raises(ValueError, match="an image encoder alone, not the composition"):
        open_encoder(file.with_name("image.npz"), chain)
    with pytest.raises(ValueError, match="neither all encoders nor that of images"):
        open_encoder(file.with_name("layer.npz"), chain)
