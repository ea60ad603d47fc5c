"""Codes on disk: they come back bit for bit, and only for the generator that they belong to."""

import numpy as np
import pytest
import style_toy
from safetensors.numpy import save_file

from jaxgan.code_files import about_generator, read_code, write_code
from jaxgan.style_generators import of_stylegan


@pytest.fixture(scope="module")
def generator():
    return of_stylegan(*style_toy.networks(), "d" * 64)


@pytest.fixture(scope="module")
def code(generator):
    return np.random.default_rng(1).normal(size=(generator.rows, generator.w_size)).astype(np.float32)


def test_a_code_comes_back_with_its_noise_and_its_options(generator, code, tmp_path):
    noise = {name: np.asarray(array) * 2 for name, array in generator.noise(generator.arrays).items()}
    write_code(tmp_path / "face" / "code.safetensors", code, noise=noise, about=about_generator(generator, space="W+", steps=300))
    for path in (tmp_path / "face", tmp_path / "face" / "code.safetensors"):
        found = read_code(path, generator)
        np.testing.assert_array_equal(found.code, code)
        assert found.about["space"] == "W+" and found.about["steps"] == 300 and set(found.noise) == set(noise)
        for name, array in noise.items():
            np.testing.assert_array_equal(found.noise[name], array)
    assert [path.name for path in (tmp_path / "face").iterdir()] == ["code.safetensors"]
    write_code(tmp_path / "plain.safetensors", code, about=about_generator(generator))
    assert read_code(tmp_path / "plain.safetensors").noise is None


def test_a_code_of_another_generator_is_refused_and_both_are_named(generator, code, tmp_path):
    write_code(tmp_path / "a.safetensors", code, about=about_generator(generator))
    other = generator._replace(digest="e" * 64, family="mobile_stylegan", rows=23)
    with pytest.raises(
        ValueError, match=r"another generator \(stylegan 16 px, 6 x 5, sha256 d{12}\).*\(mobile_stylegan 16 px, 23 x 5, sha256 e{12}\)"
    ):
        read_code(tmp_path / "a.safetensors", other)


def test_what_is_no_code_is_not_written(generator, code, tmp_path):
    about = about_generator(generator)
    for bad, said in [(code[:-1], r"float32 \(5, 5\); its generator takes float32 \(6, 5\)"), (code * np.nan, "not finite: code")]:
        with pytest.raises(ValueError, match=said):
            write_code(tmp_path / "a.safetensors", bad, about=about)
    with pytest.raises(ValueError, match=r"noise/layer00 is float32 \(1, 4, 4\)"):
        write_code(tmp_path / "a.safetensors", code, noise={"layer00": np.zeros((1, 4, 4))}, about=about)
    with pytest.raises(ValueError, match="must say its generator"):
        write_code(tmp_path / "a.safetensors", code, about={"family": "stylegan"})
    assert not list(tmp_path.iterdir())


def test_damage_and_other_files_are_told(generator, code, tmp_path):
    path = tmp_path / "a.safetensors"
    write_code(path, code, about=about_generator(generator))
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(ValueError, match="not an intact safetensors file"):
        read_code(path)
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(ValueError, match="is damaged: the sha256 of its arrays"):
        read_code(path)
    save_file({"code": code}, path)
    with pytest.raises(ValueError, match="no code: `jaxgan embed`"):
        read_code(path)
    with pytest.raises(FileNotFoundError, match="name a code.safetensors"):
        read_code(tmp_path)


def test_noise_of_another_network_is_refused(generator, code, tmp_path):
    write_code(tmp_path / "a.safetensors", code, noise={"layer00": np.zeros((8, 8))}, about=about_generator(generator))
    with pytest.raises(ValueError, match=r"noise layer00 is \(8, 8\); the generator has \(4, 4\)"):
        read_code(tmp_path / "a.safetensors", generator)
