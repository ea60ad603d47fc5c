"""COCO-GAN measured: its own probe in training, and a generator folder as a source of images."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from small_coco_gan import filled

from jaxgan import configure, viz
from jaxgan.checkpoint import name_leaves
from jaxgan.evaluate import evaluate
from jaxgan.generators import open_generator
from jaxgan.sources import open_images
from jaxgan.systems import coco_gan, coco_gan_sample
from jaxgan.systems.coco_gan_command import trained_of
from jaxgan.weights import save_generator

SMALL = coco_gan.Config((16, 16), (8, 8), (4, 4), latent=8, g_width=2, d_width=2, aux_width=4, ema=1.0)


def test_the_seam_probe_is_the_statistic_of_all_images_it_saw() -> None:
    system = SMALL.system()
    state = filled(system)
    probe, add = system.probes["seam"], jax.jit(system.probes["seam"].add)
    sums, images = probe.zero(), []
    for seed in (1, 2):
        key = jax.random.key(seed)
        part = add(probe.zero(), state, {"corner": np.zeros((64, 2), np.int32)}, key)
        sums = probe.merge(sums, jax.device_get(part))
        latents = coco_gan.draw_latents(key, (64, SMALL.latent))
        images.append(coco_gan_sample.full_images(SMALL, coco_gan_sample.generator_of(state), latents))
    assert probe.read(sums) == pytest.approx(viz.seam_statistic(np.concatenate(images), SMALL.micro), rel=1e-4)
    assert {leaf.dtype for leaf in jax.tree.leaves(sums)} == {np.dtype(np.float64)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator alone, with an average that differs from its parameters."""
    shapes = name_leaves(jax.eval_shape(SMALL.system().init, jax.random.key(0)))
    rng = np.random.default_rng(0)
    wanted = [name for name in shapes if name.startswith(("params/G/", "model/G/", "ema/G/"))]
    arrays = {name: rng.uniform(0.1, 0.6, shapes[name].shape).astype(np.float32) for name in wanted}
    folder = tmp_path_factory.mktemp("generators") / "small"
    save_generator(folder, "coco_gan", configure.to_json(configure.Experiment(SMALL))["model"], arrays, {"what": "random numbers"})
    return folder


def test_a_generator_folder_is_a_source_of_what_its_averaged_networks_draw(folder: Path) -> None:
    images = open_images(folder, n=70, seed=3)
    assert len(images) == 70 and images.facts["seed"] == 3 and images.facts["quantise"] == "round((x + 1) * 127.5)"
    trained = trained_of(open_generator(folder))
    key = jax.random.fold_in(jax.random.key(3), np.uint32(1))
    latents = coco_gan.draw_latents(key, (64, SMALL.latent))
    second = coco_gan_sample.to_bytes(coco_gan_sample.full_images(SMALL, trained, latents))
    assert np.abs(images[67].astype(int) - second[3]).max() <= 1, "image 67 is the fourth of the second block of 64"
    assert images[0].shape == (16, 16, 3) and (images[0] != images[1]).any()
    fewer, others = open_images(folder, n=5, seed=3), open_images(folder, n=5, seed=4)
    np.testing.assert_array_equal(fewer[4], images[4])
    assert (others[4] != images[4]).any() and len({images.digest, fewer.digest, others.digest}) == 3
    assert open_images(folder, n=5, seed=3).digest == fewer.digest
    with pytest.raises(ValueError, match="have no splits"):
        open_images(folder, split="train")


def test_the_seam_score_of_a_generator_knows_its_patches(folder: Path) -> None:
    score = evaluate(None, folder, ("seam",), n=6)["seam"]
    images = open_images(folder, n=6)
    expected = viz.seam_statistic(np.stack([images[i] for i in range(6)]), (4, 4))
    assert score.value == pytest.approx(expected["seam"], rel=1e-5) and score.protocol["patch"] == [4, 4]
