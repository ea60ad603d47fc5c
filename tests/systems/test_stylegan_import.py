"""`jaxgan weights import stylegan`: an official pickle becomes a generator that draws the original code's images; others are refused."""

import pickle

import jax
import numpy as np
import pytest

from jaxgan.__main__ import main
from jaxgan.style_generators import open_style_generator
from jaxgan.systems.stylegan_import import import_file, import_network
from jaxgan.weights.stylegan_files import read_stylegan


@pytest.fixture(scope="module")
def cond(shared):
    return shared / "golden" / "stylegan_cond.pkl"


def imported(path, out, capsys):
    code = main(["weights", "import", "stylegan", str(path), "--out", str(out)])
    return code, capsys.readouterr()


@pytest.mark.parametrize("tag", ["cond", pytest.param("small", marks=pytest.mark.slow), pytest.param("r128", marks=pytest.mark.slow)])
def test_the_folder_draws_what_the_original_code_drew(shared, tag, tmp_path, capsys):
    code, said = imported(shared / "golden" / f"stylegan_{tag}.pkl", tmp_path / "g", capsys)
    assert code == 0 and "a stylegan generator of" in said.out
    generator = open_style_generator(tmp_path / "g")
    with np.load(shared / "golden" / f"stylegan_{tag}_G.npz") as expected:
        labels = expected["labels"] if expected["labels"].shape[1] else None
        w = jax.jit(generator.map_latents)(generator.arrays, expected["z"], labels)
        np.testing.assert_allclose(w, expected["w"], rtol=0, atol=1e-5 * np.abs(expected["w"]).max())
        images = jax.jit(generator.synthesise)(generator.arrays, generator.extend(w), generator.noise(generator.arrays))
        truth = expected["images_psi1"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(images, truth, rtol=0, atol=5e-5 * np.abs(truth).max())
    np.testing.assert_array_equal(
        generator.w_avg(generator.arrays), read_stylegan(shared / "golden" / f"stylegan_{tag}.pkl").Gs.variables["dlatent_avg"]
    )
    if tag == "cond":
        assert main(["sample", str(tmp_path / "g"), "--out", str(tmp_path / "s.png"), "--n", "2", "--label", "2"]) == 0


class Bomb:
    def __reduce__(self):
        return print, ("must never be printed",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda whole: whole[: len(whole) // 2], "is not an intact StyleGAN pickle"),
        (lambda whole: b"<!DOCTYPE html>\n<html>quota exceeded</html>", "an HTML page"),
        (lambda whole: pickle.dumps((Bomb(), Bomb(), Bomb()), 4), "print"),
        (lambda whole: pickle.dumps([1, 2, 3], 4), "not three networks"),
    ],
    ids=["truncated", "page", "hostile", "other"],
)
def test_what_is_no_intact_pickle_is_refused_and_nothing_is_written(cond, content, said, tmp_path, capsys):
    (tmp_path / "a.pkl").write_bytes(content(cond.read_bytes()))
    code, captured = imported(tmp_path / "a.pkl", tmp_path / "g", capsys)
    assert code == 2 and said in captured.err and captured.err.count("\n") == 1 and "must never" not in captured.out
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]


def test_an_output_that_exists_no_file_and_no_folder_are_said(cond, tmp_path, capsys):
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "mine").write_text("x")
    code, captured = imported(cond, tmp_path / "g", capsys)
    assert code == 2 and "exists and is not an empty folder" in captured.err and len(list((tmp_path / "g").iterdir())) == 1
    code, captured = imported(tmp_path / "none.pkl", tmp_path / "h", capsys)
    assert code == 2 and "does not exist" in captured.err
    assert main(["weights", "import", "stylegan", str(cond)]) == 2
    assert "needs --out" in capsys.readouterr().err


def test_options_that_change_the_network_are_kept_or_refused(cond):
    config, params, model = import_file(cond)
    assert (config.resolution, config.fmap_base, config.fmap_max, config.label_size) == (16, 128, 16, 3)
    assert (config.latent_size, config.w_size, config.mapping_layers) == (16, 24, 4) and set(params) == set(model) == {"G"}
    network = read_stylegan(cond).Gs

    def told(**options):
        return network._replace(static_kwargs={**network.static_kwargs, **options}, components=dict(network.components))

    config = import_network(told(use_wscale=False, blur_filter=None, fused_scale=False, style_mixing_prob=None), "f")[0]
    assert (config.scaling, config.blur, config.fused, config.mixing) == ("initial", False, False, 0.0)
    for options, said in [
        (dict(nonlinearity="relu"), "nonlinearity 'relu'; only 'lrelu'"),
        (dict(blur_filter=[1, 3, 3, 1]), r"blurs with \[1, 3, 3, 1\]"),
        (dict(architecture="skip"), "option that StyleGAN .2019. does not have: architecture = 'skip'"),
    ]:
        with pytest.raises(ValueError, match=said):
            import_network(told(**options), "f")


def test_channels_that_are_not_those_of_the_options_are_refused(cond):
    network = read_stylegan(cond).Gs
    parts = {name: part._replace(static_kwargs={}) for name, part in network.components.items()}
    with pytest.raises(ValueError, match="which is not what its options say .fmap_base 64"):
        import_network(network._replace(static_kwargs={"fmap_base": 64}, components=parts), "f")
