"""The stages as they run in the loop against the published loops: twelve steps of a layer's encoder, with gradients cleared and never
cleared, three of the image encoder, and the losses of the composition, on small networks of 128 px."""

from __future__ import annotations

import inversion_reference as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.nets import progan
from jaxgan.systems import layer_inversion, layer_inversion_stages
from jaxgan.systems.layer_inversion import Config
from jaxgan.weights import inversion_encoder_files as files

COMPILER = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
SIZES = (16, 16, 16, 16, 16, 12, 8)


@pytest.fixture(scope="module")
def golden(shared):
    return {**reference.read(shared, "inversion_losses"), "sizes": np.asarray(SIZES)}


@pytest.fixture
def latents(monkeypatch):
    """Takes the place of the draws: put the z of a step in 'z'."""
    box = {}
    monkeypatch.setattr(layer_inversion_stages, "draw_latents", lambda chain, arrays, key, count: box["z"])
    return box


def networks(golden, names):
    """{encoder: (params, stats)} before the published training."""
    found = {}
    for name in names:
        kind = "resnet" if name == "image" else name
        arrays = {key.removeprefix(f"{kind}/enc0/"): array for key, array in golden.items() if key.startswith(f"{kind}/enc0/")}
        found[name] = files.of_image(arrays, 128, 8, kind) if name == "image" else files.of_layer(arrays, int(name[5:]), kind)
    return {name: (encoder.params, encoder.stats) for name, encoder in found.items()}


def begin(golden, stage, names, **changes):
    """(system, state) of a run of one stage with the published code's first arrays."""
    widths = tuple(golden[f"resnet/enc0/layer{i}.0.conv1.weight"].shape[0] for i in range(1, 5))
    config = Config("golden", stages=(stage,), batch=6, widths=widths, **changes)
    chain = reference.generator(golden)
    made = layer_inversion.system(config, chain)
    state = jax.jit(made.init, compiler_options=COMPILER)(jax.random.key(0))
    given = jax.tree.map(jnp.asarray, networks(golden, names))
    assert set(state.params["E"]) == set(names)
    parts = [{name: pair[i] for name, pair in given.items()} for i in (0, 1)]
    assert jax.tree.map(jnp.shape, parts[0]) == jax.tree.map(jnp.shape, state.params["E"])
    return made, state._replace(params={"E": parts[0]}, model={"E": {**state.model["E"], "stats": parts[1]}})


def follow(made, state, latents, steps):
    """(losses, end) of steps on the published stream of z."""

    def step(state, z):
        latents["z"] = z
        return made.step(state, {"sample": jnp.arange(6, dtype=jnp.int32)}, jax.random.key(0))

    step, losses = jax.jit(step, compiler_options=COMPILER), []
    for number in range(steps):
        state, info = step(state, jnp.asarray(progan.standard_z(101 + number, 6, 16), jnp.float32).reshape(6, 16))
        losses.append(float(info["loss/E"]))
    return losses, state


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("name", ["layer1", "layer3"])
def test_twelve_steps_of_a_layers_encoder(golden, latents, name, accumulate):
    made, state = begin(golden, name, (name,), accumulate=accumulate)
    losses, state = follow(made, state, latents, 12)
    trace = f"{name}/adam12_{'accumulate' if accumulate else 'cleared'}"
    np.testing.assert_allclose(losses[:3], golden[f"{trace}/loss"][:3], rtol=1e-4)
    np.testing.assert_allclose(losses, golden[f"{trace}/loss"], rtol=1e-3)
    kernel = np.asarray(state.params["E"][name]["conv1"]["kernel"]).transpose(3, 2, 0, 1)
    np.testing.assert_allclose(kernel, golden[f"{trace}/conv1.weight"], atol=2e-4)
    mean = state.model["E"]["stats"][name]["norm1"]["mean"]
    # biases before a batch norm have no gradient but rounding, on which Adam moves them and so the mean
    np.testing.assert_allclose(mean, golden[f"{trace}/bn1.running_mean"], atol=1e-3)
    other = golden[f"{name}/adam12_{'cleared' if accumulate else 'accumulate'}/conv1.weight"]
    assert np.abs(kernel - other).max() > 5e-4  # the two are told apart


@pytest.mark.slow
def test_the_first_steps_of_the_image_encoder(golden, latents):
    """Accumulation does not concern it: the published loop of this stage clears its gradients."""
    made, state = begin(golden, "image", ("image",), accumulate=True)
    losses, _ = follow(made, state, latents, 3)
    np.testing.assert_allclose(losses[0], golden["resnet/adam8_lr0.01/loss"][0], rtol=1e-5)
    # the later ones hang on the signs of gradients near 0: see the same trace in tests/test_inversion_losses.py
    np.testing.assert_allclose(losses, golden["resnet/adam8_lr0.01/loss"][:3], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["joint", "bottom5"])
def test_the_losses_of_the_composition(golden, latents, stage):
    names = ("image", "layer4", "layer3", "layer2", "layer1")
    made, state = begin(golden, stage, names)
    latents["z"] = jnp.asarray(golden["z"]).reshape(6, 16)
    if stage == "joint":
        _, info = jax.jit(lambda state: made.step(state, {"sample": jnp.arange(6)}, jax.random.key(0)), compiler_options=COMPILER)(state)
        terms = {"i4": "estimate_layer4", "rz": "recover_z", "r4": "recover_layer4", "rx": "recover_x", "total": "loss/E"}
        for theirs, ours in terms.items():
            np.testing.assert_allclose(float(info[ours]), golden[f"hybrid/train/{theirs}"], rtol=2e-4, err_msg=ours)
    else:
        terms = {"rz": "recover_z", **{f"r{i}": f"recover_layer{i}" for i in range(1, 5)}, "rx": "recover_x"}
        _, info = jax.jit(lambda state: made.step(state, {"sample": jnp.arange(6)}, jax.random.key(0)), compiler_options=COMPILER)(state)
        assert set(terms.values()) <= set(info)
        np.testing.assert_allclose(sum(float(info[name]) for name in terms.values()), float(info["loss/E"]), rtol=1e-5)


def test_every_stage_of_the_published_code_has_its_schedule(golden):
    composed = Config("golden").composed(reference.generator(golden))
    parts = {part.name: part for part in layer_inversion_stages.parts((), composed)}
    assert list(parts) == ["layer1", "layer2", "layer3", "layer4", "image", "joint"]
    assert [part.published.milestones for part in parts.values()] == [
        (0.2, 0.6),
        (0.6, 0.8),
        (0.2, 0.6),
        (0.2, 0.6),
        (),
        (0.05, 0.15, 0.35),
    ]
    assert [part.published.rate for part in parts.values()] == [1e-4] * 4 + [0.01, 1e-5]
    bottom = layer_inversion_stages.parts(tuple(f"bottom{i}" for i in range(1, 6)), composed)
    assert [part.trained for part in bottom][0] == ("layer1",) and bottom[2].trained == ("layer3", "layer2", "layer1")
    assert bottom[4].trained == parts["joint"].trained == ("image", "layer4", "layer3", "layer2", "layer1")
