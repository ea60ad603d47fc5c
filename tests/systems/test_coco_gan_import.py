"""A published checkpoint's variables become a generator folder that samples the published code's images."""

import numpy as np
import pytest

from jaxgan import viz
from jaxgan.__main__ import main
from jaxgan.generators import open_generator
from jaxgan.systems import coco_gan, coco_gan_sample
from jaxgan.systems.coco_gan_command import trained_of
from jaxgan.systems.coco_gan_import import import_variables, place

CONFIG = """
from jaxgan.configure import Experiment
from jaxgan.systems.coco_gan import Config


def config():
    return Experiment(model=Config(latent=32, g_width=8, d_width=8, aux_width=32))
"""


@pytest.fixture(scope="module")
def reference(golden):
    with np.load(golden / "cocogan_CelebA_64x64_N2M2S32.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def variables(reference):
    return {name.removeprefix("var/"): value for name, value in reference.items() if name.startswith("var/")}


def test_from_variables_on_disk_to_the_published_images(reference, variables, tmp_path, capsys):
    """With what a real checkpoint holds beside the weights: optimiser slots, counters and the suffix ':0'."""
    beside = {"G_generator/g_z_fc/w/Adam": np.zeros((34, 512)), "G_generator/g_z_fc/w/Adam_1": np.zeros(1), "beta1_power": np.zeros(())}
    np.savez(tmp_path / "checkpoint.npz", **{f"{name}:0": value for name, value in {**variables, **beside}.items()})
    (tmp_path / "config.py").write_text(CONFIG)
    out = tmp_path / "generator"
    assert (
        main(
            ["weights", "import", "coco-gan", str(tmp_path / "checkpoint.npz"), "--out", str(out), "--config", str(tmp_path / "config.py")]
        )
        == 0
    )
    generator = open_generator(out)
    images = coco_gan_sample.full_images(generator.config, trained_of(generator), reference["in/z"])
    np.testing.assert_allclose(images, reference["infer/full_image"], atol=1e-5)

    assert main(["sample", str(out), "--out", str(tmp_path / "grid.png"), "--n", "4"]) == 0
    assert viz.read_png(tmp_path / "grid.png").std() > 10
    assert "seam statistic" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.pop("G_generator/g_z_fc/b"), r"G/input/bias is missing"),
        (
            lambda v: v.update({"D_discriminator/y_emb/w": np.zeros((3, 64))}),
            r"D/projection/kernel has shape \(3, 64\), the config wants \(2, 64\)",
        ),
        (
            lambda v: v.update({"G_generator/g_resblock_7/g_resblock_conv_1/w": np.zeros(1)}),
            r"G/block_7/conv_1/kernel is not in the config",
        ),
        (lambda v: v.update({"vgg/conv1_1/w": np.zeros(1)}), r"'vgg/conv1_1/w' is no variable of a COCO-GAN checkpoint"),
    ],
)
def test_variables_that_do_not_fit_are_named(variables, change, said):
    changed = dict(variables)
    change(changed)
    with pytest.raises(ValueError, match=said):
        import_variables(coco_gan.Config(latent=32, g_width=8, d_width=8, aux_width=32), changed)


def test_every_variable_has_its_own_place(variables):
    places = [place(name) for name in variables]
    assert None not in places and len(set(places)) == len(variables)
