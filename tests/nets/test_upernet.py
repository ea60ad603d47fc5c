"""ResNet-50 and UPerNet: closed-form sizes, naive float64 layers, and state dicts with the published names."""

from __future__ import annotations

import time

import jax
import numpy as np
import pytest

from jaxgan.nets import resnet, upernet
from jaxgan.nets.resampling import bilinear, precise_pooling

CLASSES = {"object": 336, "part": 427, "material": 26, "scene": 365}
SMALL = upernet.Layout(resnet.Layout((4, 5, 6), (2, 3, 4, 5), (2, 1, 1, 2)), 3, 8)
FEW = {"object": 6, "part": 9, "material": 3, "scene": 2}


def random_state(units, seed=0) -> dict[str, np.ndarray]:
    """A state dict with the published names; statistics and scales such that activations keep their size."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in resnet.state_shapes(units).items():
        if len(shape) == 4:
            value = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            value = rng.uniform(0.5, 1.5, shape) if name.endswith(("running_var", "weight")) else rng.normal(size=shape) * 0.1
        state[name] = value.astype(np.float32)
    return state


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """[H, W, I], OIHW kernel, zero padding k // 2, in float64 and loops."""
    x, k = np.asarray(x, np.float64), kernel.shape[2]
    padded = np.pad(x, ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    height, width = (x.shape[0] - 1) // stride + 1, (x.shape[1] - 1) // stride + 1
    out = np.zeros((height, width, kernel.shape[0]))
    for i in range(height):
        for j in range(width):
            patch = padded[i * stride : i * stride + k, j * stride : j * stride + k]
            out[i, j] = np.einsum("hwi,oihw->o", patch, kernel.astype(np.float64))
    return out


def unit(state, convolution, normalisation, x, stride=1):
    """Convolution and batch normalisation with running statistics."""
    y = convolve(x, state[f"{convolution}.weight"], stride)
    scale, shift, mean, variance = (
        state[f"{normalisation}.{name}"].astype(np.float64) for name in ("weight", "bias", "running_mean", "running_var")
    )
    return (y - mean) / np.sqrt(variance + 1e-5) * scale + shift


def relu(x):
    return np.maximum(x, 0)


def max_pool(x):
    height, width = (x.shape[0] + 1) // 2, (x.shape[1] + 1) // 2
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    return np.array([[padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1)) for j in range(width)] for i in range(height)])


def naive_stages(state, x, blocks):
    for k in (1, 2, 3):
        x = relu(unit(state, f"conv{k}", f"bn{k}", x, 2 if k == 1 else 1))
    x, maps = max_pool(x), []
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            here, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = relu(unit(state, f"{here}.conv1", f"{here}.bn1", x))
            y = relu(unit(state, f"{here}.conv2", f"{here}.bn2", y, stride))
            y = unit(state, f"{here}.conv3", f"{here}.bn3", y)
            x = relu(y + (unit(state, f"{here}.downsample.0", f"{here}.downsample.1", x, stride) if block == 0 else x))
        maps.append(x)
    return maps


def resize(x, height, width):
    return np.einsum("hH,HWc,wW->hwc", bilinear(x.shape[0], height), x, bilinear(x.shape[1], width))


def naive_decoder(state, maps):
    """The published order: pool, resize, convolution, normalisation, ReLU."""
    last = maps[-1]
    pooled = [last]
    for k, scale in enumerate((1, 2, 3, 6)):
        small = np.einsum("hH,HWc,wW->hwc", precise_pooling(last.shape[0], scale), last, precise_pooling(last.shape[1], scale))
        pooled.append(relu(unit(state, f"ppm_conv.{k}.0", f"ppm_conv.{k}.1", resize(small, *last.shape[:2]))))
    x = relu(unit(state, "ppm_last_conv.0", "ppm_last_conv.1", np.concatenate(pooled, -1)))

    def head(name, x):
        return relu(unit(state, f"{name}_head.0.0", f"{name}_head.0.1", x))

    def scores(name, x):
        return convolve(x, state[f"{name}.weight"]) + state[f"{name}.bias"]

    scene = scores("scene_head.2", head("scene", x).mean((0, 1), keepdims=True))[0, 0]
    levels = [x]
    for k in (2, 1, 0):
        lateral = relu(unit(state, f"fpn_in.{k}.0", f"fpn_in.{k}.1", maps[k]))
        x = lateral + resize(x, *lateral.shape[:2])
        levels.append(relu(unit(state, f"fpn_out.{k}.0.0", f"fpn_out.{k}.0.1", x)))
    levels.reverse()
    fused = np.concatenate([resize(level, *levels[0].shape[:2]) for level in levels], -1)
    fused = relu(unit(state, "conv_fusion.0", "conv_fusion.1", fused))
    found = {name: scores(f"{name}_head.1", head(name, fused)) for name in ("object", "part")}
    return found | {"material": scores("material_head.1", head("material", levels[0])), "scene": scene}


def small_states():
    return random_state(resnet.units(SMALL.encoder)), random_state(upernet.units(FEW, SMALL), 1)


def test_the_number_of_parameters_is_that_of_the_published_network():
    # ResNet-50: stem 3-64-64-128; a stage of width p and n blocks on i channels has i p + 9 p^2 + 4 p^2 + 4 i p, then n - 1 blocks of
    # 17 p^2, and 2 (1 + 1 + 4) p normalisation values a block, 8 p more for the shortcut; each normalisation stores as many statistics.
    kernels = 9 * (3 * 64 + 64 * 64 + 64 * 128)
    norms = 2 * (64 + 64 + 128)
    for inputs, p, n in ((128, 64, 3), (256, 128, 4), (512, 256, 6), (1024, 512, 3)):
        kernels += 5 * inputs * p + 13 * p * p + (n - 1) * 17 * p * p
        norms += n * 12 * p + 8 * p
    encoder = resnet.state_shapes(resnet.units())
    learned = sum(int(np.prod(shape)) for name, shape in encoder.items() if "running" not in name)
    assert learned == kernels + norms
    # with a classifier on 1000 classes this is the well-known ResNet-50 (25,557,032) with another stem and a wider first shortcut
    plain = 25_557_032 - (2048 * 1000 + 1000)
    assert learned == plain - (9_408 + 128) + (9 * (3 * 64 + 64 * 64 + 64 * 128) + 512) + 64 * (64 + 256)

    decoder = resnet.state_shapes(upernet.units(CLASSES))
    threes, ones = 4096 + 3 * 512 + 2048 + 4 * 512, 4 * 2048 + 256 + 512 + 1024
    expected = 512 * (9 * threes + ones) + 2 * 512 * (4 + 1 + 3 + 3 + 1 + 4) + 513 * sum(CLASSES.values())
    assert sum(int(np.prod(shape)) for name, shape in decoder.items() if "running" not in name) == expected


def test_published_names_of_the_state_dicts():
    encoder, decoder = (resnet.state_shapes(units) for units in (resnet.units(), upernet.units(CLASSES)))
    assert encoder["conv3.weight"] == (128, 64, 3, 3) and encoder["bn2.running_var"] == (64,)
    assert encoder["layer1.0.downsample.0.weight"] == (256, 128, 1, 1) and "layer1.1.downsample.0.weight" not in encoder
    assert encoder["layer3.5.conv2.weight"] == (256, 256, 3, 3) and "layer3.6.conv1.weight" not in encoder
    assert decoder["ppm_conv.3.0.weight"] == (512, 2048, 1, 1) and decoder["ppm_last_conv.0.weight"] == (512, 4096, 3, 3)
    assert decoder["fpn_in.2.0.weight"] == (512, 1024, 1, 1) and decoder["fpn_out.0.0.1.running_mean"] == (512,)
    assert decoder["conv_fusion.0.weight"] == (512, 2048, 3, 3) and decoder["object_head.1.bias"] == (336,)
    assert decoder["part_head.0.0.weight"] == (512, 512, 3, 3) and decoder["scene_head.2.weight"] == (365, 512, 1, 1)


def test_the_network_is_the_naive_network_in_float64():
    # 37 x 50 pixels: no side is a multiple of 32, so every padding and every resizing is in play
    encoder, decoder = small_states()
    image = np.random.default_rng(2).normal(size=(37, 50, 3))
    maps = naive_stages(encoder, image, SMALL.encoder.blocks)
    expected = naive_decoder(decoder, maps)
    params = upernet.params(encoder, decoder, FEW, SMALL)
    batch = np.stack([image, image[::-1]]).astype(np.float32)
    for found, naive in zip(jax.jit(resnet.stages)(params, batch), maps, strict=True):
        np.testing.assert_allclose(found[0], naive, rtol=1e-4, atol=1e-4)
    found = jax.jit(lambda p, x: upernet.logits(p, x, upernet.HEADS))(params, batch)
    assert {name: scores.shape for name, scores in found.items()} == {
        "object": (2, 10, 13, 6),
        "part": (2, 10, 13, 9),
        "material": (2, 10, 13, 3),
        "scene": (2, 2),
    }
    for name, scores in found.items():
        np.testing.assert_allclose(scores[0], expected[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_wrapped_names_and_counters_of_the_normalisation_change_nothing():
    encoder, decoder = small_states()
    plain = upernet.params(encoder, decoder, FEW, SMALL)
    counters = {"bn1.num_batches_tracked": np.int64(7), "bn1._running_iter": np.ones(1), "bn1._tmp_running_mean": np.full(4, np.nan)}
    wrapped = {f"module.{name}": np.asarray(array) for name, array in (encoder | counters).items()}
    again = upernet.params(wrapped, decoder, FEW, SMALL)
    assert plain.keys() == again.keys() and all(np.array_equal(plain[name], again[name]) for name in plain)
    assert all(array.dtype == np.float32 for array in plain.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("conv_fusion.0.weight"), "the decoder .*dict: missing: conv_fusion.0.weight$"),
        (lambda state: state.update({"fc.weight": np.zeros((2, 2))}), "not known: fc.weight$"),
        (lambda state: state.update({"object_head.1.bias": np.zeros(7)}), r"of another shape: object_head.1.bias \(7,\), not \(6,\)$"),
        (lambda state: [state.pop(name) for name in list(state)[:9]], "missing: ppm_conv.0.0.weight, ppm_conv.0.1.weight, .* and 6 more$"),
        (lambda state: state.update({"fpn_in.0.1.running_var": np.full(8, -1.0)}), "fpn_in.0.1.running_var has the value -1"),
        (lambda state: state.update({"fpn_in.0.1.bias": np.full(8, np.nan)}), "not finite: fpn_in.0.1.bias"),
    ],
)
def test_another_state_dict_is_refused_by_name(change, words):
    encoder, decoder = small_states()
    change(decoder)
    with pytest.raises(ValueError, match=words):
        upernet.params(encoder, decoder, FEW, SMALL)


def test_an_unknown_head_is_refused():
    with pytest.raises(ValueError, match="'texture'"):
        upernet.logits({}, np.zeros((1, 32, 32, 3), np.float32), ("object", "texture"))


@pytest.mark.slow
def test_the_published_size_runs_once_at_256_pixels(record_property):
    params = upernet.params(random_state(resnet.units()), random_state(upernet.units(CLASSES), 1), CLASSES)
    image = np.random.default_rng(3).uniform(-110, 140, (1, 256, 256, 3)).astype(np.float32)
    run = jax.jit(upernet.logits).lower(params, image).compile()
    before = time.process_time()
    found = jax.block_until_ready(run(params, image))
    seconds = time.process_time() - before
    record_property("cpu_seconds", seconds)
    print(f"UPerNet-ResNet50, 256 x 256: {seconds:.1f} CPU-seconds an image")
    assert {name: scores.shape for name, scores in found.items()} == {
        "object": (1, 64, 64, 336),
        "material": (1, 64, 64, 26),
        "part": (1, 64, 64, 427),
    }
    assert all(np.isfinite(scores).all() and np.ptp(np.asarray(scores)) > 0 for scores in found.values())
