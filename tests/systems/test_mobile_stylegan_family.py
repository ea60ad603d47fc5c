"""MobileStyleGAN as a family: what an import writes, what drawing makes of it, and what is refused."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxgan import generators, weights
from jaxgan.__main__ import main
from jaxgan.nets import mobile_stylegan as nets
from jaxgan.systems import mobile_stylegan, mobile_stylegan_import

WIDTHS = (8, 4)


def published(widths: tuple[int, ...] = WIDTHS, latent: int = 6) -> dict[str, np.ndarray]:
    """Random arrays by the published names, of a 16 px network with two mapping layers."""
    rng, arrays = np.random.default_rng(0), {}

    def put(name: str, *shape: int) -> None:
        arrays[f"{name}.c{len(arrays)}"] = rng.normal(0, 0.5, shape).astype(np.float16)

    def convolution(name: str, inputs: int, outputs: int, side: int, size: int) -> None:
        put(f"{name}.conv.modulation@MatMul", inputs, latent)
        put(f"{name}.conv.modulation.bias", 1, inputs)
        put(f"{name}@Multiply", 1, 1, 1, 1)
        put(f"{name}@Convolution", outputs, inputs, size, size)
        put(f"{name}@Add", 1, 1, side, side)
        put(f"{name}.bias", 1, outputs, 1, 1)
        if size == 1:
            put(f"{name}@GroupConvolution", inputs, 1, 1, 3, 3)

    put("snet.m.input.input", 1, widths[0], 4, 4)
    convolution("snet.m.conv1", widths[0], widths[0], 4, 3)
    for i, (before, width) in enumerate(zip(widths, widths[1:], strict=False)):
        put(f"snet.m.layers.{i}.up.modulation@MatMul", before, latent)
        put(f"snet.m.layers.{i}.up.modulation.bias", 1, before)
        convolution(f"snet.m.layers.{i}.conv1", before // 4, width, 8 << i, 1)
        convolution(f"snet.m.layers.{i}.conv2", width, width, 8 << i, 1)
    name = f"snet.m.layers.{len(widths) - 2}.to_img"
    put(f"{name}.conv.modulation@MatMul", widths[-1], latent)
    put(f"{name}.conv.modulation.bias", 1, widths[-1])
    put(f"{name}@Multiply", 1, 1, 1, 1)
    put(f"{name}.conv.weight", 12, widths[-1], 1, 1)
    put(f"{name}.bias", 1, 12, 1, 1)
    for _ in range(2):
        put("mnet.g@MatMul", latent, latent)
        put("mnet.g@Reshape", latent)
    return arrays


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A generator folder that the command line made."""
    place = tmp_path_factory.mktemp("mobile")
    save_file(published(), place / "small.safetensors")
    assert main(["weights", "import", "mobile-stylegan", str(place / "small.safetensors"), "--out", str(place / "generator")]) == 0
    return place / "generator"


def test_the_folder_holds_the_sizes_of_the_file(folder):
    generator = generators.open_generator(folder)
    assert generator.config == mobile_stylegan.Config(WIDTHS, 6, 6, 2) and generator.config.resolution == 16
    assert json.loads((folder / "generator.json").read_text())["provenance"]["file"] == "small.safetensors"
    # every number of the file is in the folder once: nothing was left out or put in twice, but the modulation factors
    factors = sum(array.size for name, array in published().items() if "@Multiply" in name)
    assert sum(array.size for array in generator.arrays.values()) == sum(array.size for array in published().values()) - factors + 6


def test_images_drawn_are_truncated_ones_whatever_the_number_of_devices(folder):
    generator = generators.open_generator(folder)
    drawn = generators.drawing(generator)(5, 2)
    assert drawn.shape == (64, 16, 16, 3) and drawn.dtype == np.uint8
    params, model = (generators.nested(generator.arrays, part)["G"] for part in ("params", "model"))
    z = jax.random.normal(jax.random.fold_in(jax.random.key(5), 2), (64, 6))
    w = np.asarray(jax.jit(nets.map_latents)(params, z))
    codes = np.repeat((model["w_avg"] + 0.5 * (w - model["w_avg"]))[:, None], 5, 1)
    wanted = generators.quantise(jax.jit(nets.synthesise)(params, codes, model["noise"]))
    assert np.abs(wanted.astype(int) - drawn).max() <= 1 and len(np.unique(wanted)) > 50


def test_the_mean_code_is_that_of_many_latents(folder):
    params = generators.nested(generators.open_generator(folder).arrays, "params")["G"]
    z = np.random.default_rng(99).standard_normal((10_000, 6), np.float32)
    other = np.asarray(jax.jit(nets.map_latents)(params, z))
    # two means of 10,000 draws differ by their deviation times sqrt(2 / 10,000)
    distance = np.abs(mobile_stylegan_import.mean_code(params) - other.mean(0)) / other.std(0)
    assert distance.max() < 5 * (2 / 10_000) ** 0.5


def test_the_mean_code_of_the_published_network(shared):
    names = shared / "weights" / "mobilestylegan_ffhq1024"
    golden = np.load(f"{names}.golden.npz")
    found = mobile_stylegan_import.mean_code(nets.params(weights.load("mobilestylegan", f"{names}.safetensors")))
    # the reference is a mean of fewer latents: its entries are off by 0.023, those of w vary by 0.5
    assert np.sqrt(np.square(found - golden["w_mean"][0]).mean()) < 0.03
    assert np.corrcoef(found, golden["w_mean"][0])[0, 1] > 0.98


def test_files_that_are_not_it_are_refused_and_nothing_is_written(tmp_path, capsys):
    arrays = published()
    first = next(name for name in arrays if name.startswith("snet.m.layers.0.conv2@Convolution"))
    cases = {
        "other": ({"conv1.weight": np.ones((3, 3), np.float32)}, "not MobileStyleGAN"),
        "missing": ({name: array for name, array in arrays.items() if name != first}, "snet.m.layers.0.conv2@Convolution"),
        "shape": ({**arrays, first: np.ones((4, 8, 1, 1), np.float16)}, "layer0_conv2/pointwise is (1, 1, 8, 4)"),
        "nan": ({**arrays, first: np.full((4, 4, 1, 1), np.nan, np.float16)}, "finite"),
    }
    for name, (content, message) in cases.items():
        save_file(content, tmp_path / f"{name}.safetensors")
        assert main(["weights", "import", "mobile-stylegan", str(tmp_path / f"{name}.safetensors"), "--out", str(tmp_path / "g")]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
        assert not (tmp_path / "g").exists()


def test_training_is_not_offered(folder):
    system = generators.open_generator(folder).config.system()
    with pytest.raises(ValueError, match="not trained here"):
        system.step(jax.eval_shape(system.init, jax.random.key(0)), {}, jax.random.key(0))
    with pytest.raises(ValueError, match="not trained here"):
        system.check(4)  # asked before a run writes anything
    with pytest.raises(ValueError, match="multiples of 4"):
        mobile_stylegan.Config((8, 6))
