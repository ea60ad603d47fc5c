"""The encoders in one: sizes of the published composition, what runs from where, and which arrays joint training moves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.nets import composed_encoder, image_encoder, layer_encoders

COMPILER = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
SHAPES = {"layer1": (4, 4, 5), "layer2": (4, 4, 5), "layer3": (8, 8, 6), "layer4": (8, 8, 7)}
SMALL = (2, 2, 3, 4)


def total(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("side", [32, 64, 128, 256])
def test_the_published_composition_has_its_numbers_of_parameters_for_every_side(side):
    composed = composed_encoder.official(side)
    params, stats = jax.eval_shape(lambda key: composed_encoder.init(composed, key), jax.random.key(0))
    counts = {name: total(part) for name, part in params.items()}
    assert counts == {"image": 11_439_168, "layer4": 4_984_320, "layer3": 4_984_320, "layer2": 4_721_664, "layer1": 4_458_496}
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    found, _ = jax.eval_shape(lambda p, s, x: composed_encoder.apply(composed, p, s, x), params, stats, images)
    assert found["layer4"].shape == found["layer3"].shape == (2, 8, 8, 512)
    assert found["layer2"].shape == found["layer1"].shape == (2, 4, 4, 512) and found["z"].shape == (2, 512)
    shapes = {"layer1": (4, 4, 512), "layer2": (4, 4, 512), "layer3": (8, 8, 512), "layer4": (8, 8, 512)}
    assert composed == composed_encoder.between((512,), shapes, (side, side, 3))


def test_it_is_its_parts_one_after_the_other_and_starts_at_any_of_them():
    composed = composed_encoder.between((3,), SHAPES, (32, 32, 3), widths=SMALL)
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: composed_encoder.init(composed, jax.random.key(0)))
    params, stats = jax.tree.map(
        lambda leaf: (random.normal(size=leaf.shape) if len(leaf.shape) == 4 else random.uniform(0.5, 1, leaf.shape)).astype(np.float32),
        shapes,
    )
    images = random.normal(size=(3, 32, 32, 3)).astype(np.float32)

    def compute(params, stats, images):
        by_hand, new = {}, {}
        x, new["image"] = image_encoder.apply(composed.image, params["image"], stats["image"], images, train=True)
        for name, encoder in composed.layers:
            by_hand[name] = x
            x, new[name] = layer_encoders.apply(encoder, params[name], stats[name], x, train=True)
        whole = composed_encoder.apply(composed, params, stats, images, train=True)
        return (
            whole,
            (by_hand | {"z": x}, new),
            composed_encoder.apply(composed, params, stats, by_hand["layer2"], train=True, start="layer2"),
        )

    whole, parts, later = jax.jit(compute, compiler_options=COMPILER)(params, stats, images)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, parts)
    assert list(later[0]) == ["layer1", "z"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), later[0], {name: whole[0][name] for name in later[0]})
    norms = {name: "stem" if name == "image" else "norm1" for name in stats}
    moved = {name for name, norm in norms.items() if not np.array_equal(later[1][name][norm]["mean"], stats[name][norm]["mean"])}
    assert moved == {"layer2", "layer1"}


def test_joint_training_moves_all_but_the_third_convolutions():
    composed = composed_encoder.between((3,), SHAPES, (32, 32, 3), widths=SMALL)
    params, _ = jax.eval_shape(lambda key: composed_encoder.init(composed, key), jax.random.key(0))
    moves = composed_encoder.joint_trainable(params)
    assert jax.tree.structure(moves) == jax.tree.structure(params)
    fixed = {(name, part) for name, parts in moves.items() for part, leaves in parts.items() if not all(leaves.values())}
    assert fixed == {("layer4", "conv3"), ("layer3", "conv3")}


def test_names_and_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="side 48"):
        composed_encoder.official(48)
    composed = composed_encoder.between((3,), SHAPES, (32, 32, 3), widths=SMALL)
    with pytest.raises(ValueError, match="no layer 'z' to start from: this encoder has layer4, layer3, layer2, layer1"):
        composed_encoder.apply(composed, {}, {}, np.zeros((1, 4, 4, 5)), start="z")
    with pytest.raises(ValueError, match="from a map of 8 x 8 to one of 3 x 3"):
        composed_encoder.between((3,), {"layer1": (3, 3, 5), "layer2": (8, 8, 5)}, (32, 32, 3))
