"""`jaxgan sample` on a COCO-GAN generator folder: what is written is what the sampling functions make."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxgan import configure, viz
from jaxgan.__main__ import main
from jaxgan.checkpoint import name_leaves
from jaxgan.generators import open_generator
from jaxgan.systems import coco_gan_sample as sampling
from jaxgan.systems.coco_gan import Config
from jaxgan.systems.coco_gan_command import trained_of
from jaxgan.weights import save_generator

CONFIG = Config((16, 16), (8, 8), (4, 4), latent=8, g_width=2, d_width=2, aux_width=4, ema=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A generator alone, made of random numbers, with an average that differs from its parameters."""
    shapes = name_leaves(jax.eval_shape(CONFIG.system().init, jax.random.key(0)))
    rng = np.random.default_rng(0)
    wanted = [name for name in shapes if name.startswith(("params/G/", "model/G/", "ema/G/"))]
    arrays = {name: rng.uniform(0.1, 0.6, shapes[name].shape).astype(np.float32) for name in wanted}
    folder = tmp_path_factory.mktemp("generators") / "small"
    model = configure.to_json(configure.Experiment(CONFIG))["model"]
    save_generator(folder, "coco_gan", model, arrays, {"what": "random numbers"})
    return folder


def sample(folder, *words) -> None:
    assert main(["sample", str(folder), *map(str, words)]) == 0


def images_of(folder, seed: int, n: int, **arguments) -> np.ndarray:
    trained = trained_of(open_generator(folder))
    return sampling.to_bytes(sampling.full_images(CONFIG, trained, sampling.random_latents(CONFIG, seed, n), **arguments))


def test_the_folder_holds_the_configuration_and_the_averaged_generator(folder):
    generator = open_generator(folder)
    assert (generator.family, generator.config) == ("coco_gan", CONFIG)
    trained = trained_of(generator)
    np.testing.assert_array_equal(trained.params["G"]["output"]["kernel"], generator.arrays["ema/G/output/kernel"])
    assert not np.array_equal(generator.arrays["ema/G/output/kernel"], generator.arrays["params/G/output/kernel"])


def test_a_grid_files_and_boxes_show_the_images_of_the_seed(folder, tmp_path):
    images = images_of(folder, 3, 4)
    sample(folder, "--out", tmp_path / "grid.png", "--n", 4, "--seed", 3)
    np.testing.assert_array_equal(viz.read_png(tmp_path / "grid.png"), viz.grid(images))
    sample(folder, "--out", tmp_path / "many", "--n", 4, "--seed", 3)
    files = sorted((tmp_path / "many").iterdir())
    assert [path.name for path in files] == [f"{i:06d}.png" for i in range(4)]
    np.testing.assert_array_equal([viz.read_png(path) for path in files], images)
    sample(folder, "--out", tmp_path / "box.png", "--n", 1, "--seed", 3, "--box", 3, 5, 7, 6)
    np.testing.assert_array_equal(viz.read_png(tmp_path / "box.png"), images[0, 3:10, 5:11])


@pytest.mark.slow
def test_a_coordinate_on_the_lattice_is_that_patch_of_the_image(folder, tmp_path):
    image = images_of(folder, 0, 1)[0]
    sample(folder, "--out", tmp_path / "at.png", "--n", 1, "--at", -1, 1, "1", "-1")
    np.testing.assert_array_equal(viz.read_png(tmp_path / "at.png"), viz.grid(np.stack([image[:4, 12:], image[12:, :4]]), 2))


def test_a_streamed_canvas_is_the_image_made_at_once(folder, tmp_path):
    expected = images_of(folder, 0, 2, beyond=(1, 2))[0]
    for name in ("canvas.npy", "canvas.png"):
        sample(folder, "--out", tmp_path / name, "--beyond", 1, 2, "--chunk", 5)
    found = np.load(tmp_path / "canvas.npy")
    assert np.abs(found.astype(int) - expected).max() <= 1  # another batch size: the last bit before rounding may differ
    np.testing.assert_array_equal(viz.read_png(tmp_path / "canvas.png"), found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["canvas.npy", "canvas.png"]


def test_a_walk_begins_and_ends_at_its_latents(folder, tmp_path):
    ends = images_of(folder, 5, 2)
    sample(folder, "--out", tmp_path / "walk", "--walk", 3, "--n", 1, "--seed", 5)
    files = sorted((tmp_path / "walk").iterdir())
    assert len(files) == 3
    np.testing.assert_array_equal([viz.read_png(files[0]), viz.read_png(files[-1])], ends)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--out x.png --oot y", "unknown option --oot; nearest: --out"),
        ("--out x.png --n 0", "--n is 0"),
        ("--out x.png --walk 1", "at least 2 images"),
        ("--out x.png --walk 2 --box 0 0 4 4", "--box and --walk cannot be asked for together"),
        ("--out x.png --box 0 0 0 4", "height and width must be positive"),
        ("--out x.png --box 0 0 4 4 --beyond 1 1", "--beyond extends full images"),
        ("--out x.png --at 1 1 1", "--at has 3 numbers"),
        ("--out x.png --guide x.png", "content head"),
        ("--out x.npy", "an .npy file is for one local canvas"),
        ("--out x --chunk 4", "a streamed canvas is one file"),
        ("--seed 1", "--out"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(words, said, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sample", str(folder), *words.split()]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(folder, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["sample", str(folder), "--out", str(tmp_path)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_arrays_of_another_configuration_are_refused(folder):
    generator = open_generator(folder)
    other = generator._replace(config=dataclasses.replace(CONFIG, g_width=3))
    with pytest.raises(ValueError, match=r"params/G/.* is \(.*\), it should be \("):
        trained_of(other)
