"""Catalogue sets: found where they are prepared, cut and resized on the fly; where they are not, the error is the recipe."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from jaxgan import configure
from jaxgan.data import builders, pipeline

tfds = builders.tfds
PICTURES = np.random.default_rng(0).integers(0, 256, (6, 218, 178, 3), dtype=np.uint8)


def prepare(root, name, config="", version="1.0.0", pictures=PICTURES):
    """A prepared set as TFDS leaves it: JPEG images beside other features, records shuffled."""

    class Config(tfds.core.BuilderConfig):
        pass

    class Celebrities(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = [Config(name=config)] if config else []
        url_infos: dict = {}
        pkg_dir_path = None

        def _info(self):
            image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
            features = tfds.features.FeaturesDict({"image": image, "attributes": {"smiling": np.bool_}, "number": np.int64})
            return tfds.core.DatasetInfo(builder=self, features=features, description="-")

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i, picture in enumerate(pictures):
                out = io.BytesIO()
                Image.fromarray(picture).save(out, "JPEG")
                yield str(i), {"image": out.getvalue(), "attributes": {"smiling": True}, "number": i}

    Celebrities.name = name
    with builders.quiet():
        builder = Celebrities(data_dir=str(root), file_format="array_record")
    builders.generate(builder)


def expected(mode, box, size, filter):
    """Pixels of the pictures after JPEG, as a set of bytes: the records are shuffled."""
    found = set()
    for picture in PICTURES:
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "JPEG")
        found.add(np.asarray(Image.open(out).convert(mode).crop(box).resize(size, filter)).tobytes())
    return found


def test_a_prepared_set_is_cut_and_resized(tmp_path):
    prepare(tmp_path, "celebrities")
    data = configure.Data(source="tfds:celebrities", root=str(tmp_path), crop="celeba", filter="bicubic")
    source = pipeline.open_source(data, (64, 64, 3))
    wanted = expected("RGB", (25, 50, 153, 178), (64, 64), Image.Resampling.BICUBIC)
    assert {source[i]["image"].tobytes() for i in range(len(source))} == wanted

    centre = pipeline.open_source(configure.Data(source="tfds:celebrities", root=str(tmp_path)), (89, 89, 1))
    wanted = expected("L", (0, 20, 178, 198), (89, 89), Image.Resampling.LANCZOS)
    assert {centre[i]["image"].tobytes() for i in range(len(centre))} == wanted


def test_the_newest_version_is_read_and_configs_are_named(tmp_path):
    prepare(tmp_path, "celebrities", version="1.2.0", pictures=PICTURES[:1])
    prepare(tmp_path, "celebrities", version="1.10.0", pictures=PICTURES[:2])
    assert len(pipeline.open_source(configure.Data(source="tfds:celebrities", root=str(tmp_path)), (16, 16, 3))) == 2
    prepare(tmp_path, "rooms", config="church", pictures=PICTURES[:3])
    assert len(pipeline.open_source(configure.Data(source="tfds:rooms/church", root=str(tmp_path)), (16, 16, 3))) == 3
    with pytest.raises(ValueError, match="name one of tfds:rooms/ followed by: church"):
        pipeline.open_source(configure.Data(source="tfds:rooms", root=str(tmp_path)), (16, 16, 3))


def test_a_set_that_is_not_prepared_says_how_to(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("JAXGAN_DATA", str(tmp_path / "own"))
    with pytest.raises(FileNotFoundError) as caught:
        pipeline.open_source(configure.Data(source="tfds:celeb_a"), (64, 64, 3))
    text = str(caught.value)
    assert 'pip install "jaxgan[tfds]"' in text and "file_format='array_record'" in text
    assert os.fspath(tmp_path / "own") in text and os.fspath(tmp_path / "tfds") in text
    with pytest.raises(ValueError, match="does not name a catalogue set"):
        pipeline.open_source(configure.Data(source="tfds:../../etc"), (64, 64, 3))
    with pytest.raises(ValueError, match="no crop 'face'"):
        pipeline.open_source(configure.Data(source="tfds:celeb_a", crop="face"), (64, 64, 3))


def test_sets_of_tfds_own_folder_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("JAXGAN_DATA", str(tmp_path / "own"))
    prepare(tmp_path / "tfds", "celebrities")
    assert len(pipeline.open_source(configure.Data(source="tfds:celebrities"), (16, 16, 3))) == 6
