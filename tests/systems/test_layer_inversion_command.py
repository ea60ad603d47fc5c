"""`jaxgan invert` on a folder: what it leaves, how it goes on, what it refuses before anything is written."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path
from typing import NamedTuple

import chain_toys
import jax
import numpy as np
import pytest
from PIL import Image

from jaxgan import chains, code_files, configure, train, viz
from jaxgan import photos as photo_reading
from jaxgan.__main__ import main
from jaxgan.invert_files import Interrupted
from jaxgan.nets import progan
from jaxgan.segmenters import Segmenter
from jaxgan.systems import layer_inversion, seeing_overlay
from jaxgan.systems import layer_inversion_codes as codes
from jaxgan.systems import layer_inversion_command as command
from jaxgan.systems import layer_inversion_files as files
from jaxgan.systems import layer_inversion_images as pictures
from jaxgan.systems import layer_inversion_pairs as pairs
from jaxgan.systems.layer_inversion_options import Options

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CLASSES = ("void", "dark", "bright", "red")
FAMILIES = ("progan", *(pytest.param(family, marks=pytest.mark.slow) for family in ("stylegan", "mobile_stylegan", "coco_gan")))


def by_colour(images: np.ndarray) -> np.ndarray:
    """int32 [N, h, w] of ``CLASSES``, of pixels taken four at a time."""
    means = images.reshape(len(images), images.shape[1] // 2, 2, images.shape[2] // 2, 2, 3).mean((2, 4))
    red = (means[..., 0] > 200) & (means[..., 1:] < 60).all(-1)
    return np.where(red, 3, np.where(means.mean(-1) > 127, 2, 1)).astype(np.int32)


SEGMENTER = Segmenter("toy", CLASSES, by_colour, None, "toy 1")
BARE = command.Networks()


def chain_of(family: str) -> chains.Chain:
    if family == "coco_gan":
        return chains.of_coco_gan(*chain_toys.coco(), "d")
    if family == "progan":
        network = progan.Generator(sizes=(8, 8, 8, 6))
        params, stats = progan.init(network, jax.random.key(0))
        rng = np.random.default_rng(0)  # biases that are not 0: at the latent 0 the images are theirs alone
        params = jax.tree.map(lambda a: np.asarray(a) + rng.normal(0, 0.2, a.shape).astype(np.float32), params)
        return chains.of_progan(network, params, stats, "d")
    return chains.of_style(chain_toys.style_generator(family))


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """The searches of this module are compiled once for all runs that ask for the same, and look for ^C every second step."""
    prepare, kept = command._prepare, {}

    def once(method, options, small, networks):
        asked = json.dumps(options.as_json() | {"rank": 0, "batch": 0})
        key = (method, asked, id(small.run), id(networks.encoder), id(networks.end_to_end))
        if key not in kept:
            kept[key] = (prepare(method, options, small, networks), small, networks)  # what is held keeps its id
        return kept[key][0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_prepare", once)
        patch.setattr(command, "CHUNK", 2)
        yield


@pytest.fixture(scope="module")
def chain() -> chains.Chain:
    return chain_of("progan")


def photograph(chain: chains.Chain, folder, count: int = 3):
    """Images of the chain; on all but the first something red that it does not draw, on b more than on the others."""
    folder.mkdir(exist_ok=True)
    for name, (image, _) in zip("abc", pictures.generated(chain, count, 5).values(), strict=False):
        image = image.copy()
        side = {"a": 0, "b": 6, "c": 4}[name]
        image[2 : 2 + side, 2 : 2 + side] = (255, 0, 0)
        viz.write_png(folder / f"{name}.png", image)
    return folder


@pytest.fixture(scope="module")
def folder(chain, tmp_path_factory):
    return photograph(chain, tmp_path_factory.mktemp("photos"))


def options(folder, out, **changes) -> Options:
    given = {"steps": 4, "learning_rate": 0.01, "perceptual_weight": 0.0, "batch": 3, "images": (str(folder),)}
    return Options(generator="g", segmenter="s", out=str(out), **given | changes)


def run(chain, chosen: Options, **keywords):
    return command.run(chosen, chain=chain, **{"segmenter": SEGMENTER, "networks": BARE} | keywords)


@pytest.fixture(scope="module")
def finished(chain, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "run"
    return out, run(chain, options(folder, out))


def test_the_folder_holds_everything_and_the_mark_what_is_printed(finished, folder):
    out, found = finished
    assert sorted(path.name for path in out.iterdir()) == sorted(["a", "b", "c", *files.RESERVED])
    assert json.loads((out / "invert.json").read_text()) == found and found["state"] == "finished"
    each = ["target.png", "result.png", "pair.png", "lost.png", "target-labels.png", "result-labels.png"]
    each += ["classes.csv", "classes.json", "history.csv", "inversion.safetensors"]
    for name in "abc":
        assert sorted(path.name for path in (out / name).iterdir()) == sorted(each)
        np.testing.assert_array_equal(viz.read_png(out / name / "target.png"), viz.read_png(folder / f"{name}.png"))
    words = command.report(found, out)
    assert "lost: red: in 2 of 2 photos" in words and "report.html" in words


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_belongs_together_for_every_family(family, chain, tmp_path):
    """The image is that of the latent and the corrections on disk, the areas are those of the maps, the sheet shows all of it."""
    chain = chain if family == "progan" else chain_of(family)
    photograph(chain, tmp_path / "photos")
    found = run(chain, options(tmp_path / "photos", tmp_path / "out"))
    for name, row in zip("abc", found["table"], strict=True):
        place = tmp_path / "out" / name
        target, result = (viz.read_png(place / f"{one}.png") for one in ("target", "result"))
        inversion = codes.read(place, chain)
        assert set(inversion.corrections) == set(found["options"]["layers"]) and chain.target in inversion.activations
        assert all(np.any(array) for array in inversion.corrections.values())
        one = (np.asarray(inversion.latent)[None], {key: array[None] for key, array in inversion.corrections.items()})
        drawn = np.asarray(codes.draw(chain.run, chain.arrays, *one))[0]
        assert np.abs(viz.to_uint8(drawn).astype(int) - result).max() <= 1
        again, _ = chain.run(chain.arrays, one[0], start=(chain.target, inversion.activations[chain.target][None]))
        assert np.abs(viz.to_uint8(np.asarray(again)[0]).astype(int) - result).max() <= 1
        error = np.square(target / 127.5 - 1 - drawn.astype(np.float64)).mean()
        np.testing.assert_allclose(row["pixel_error"], 100 * error, rtol=1e-4)
        np.testing.assert_allclose(row["psnr"], 10 * np.log10(4 / error), rtol=1e-5)
        labels = by_colour(np.stack([target, result]))
        for side, one in zip(("target", "result"), labels, strict=True):
            np.testing.assert_array_equal(files.read_labels(place / f"{side}-labels.png"), one)
        table = {entry["class"]: entry for entry in json.loads((place / "classes.json").read_text())["classes"]}
        lines = {line["class"]: line for line in csv.DictReader((place / "classes.csv").read_text().splitlines())}
        for k, kind in enumerate(CLASSES):
            areas = [100 * (one == k).mean() for one in labels]
            if max(areas) > 0:
                np.testing.assert_allclose([table[kind]["photo"], table[kind]["result"]], areas, atol=1e-5)
                np.testing.assert_allclose(float(lines[kind]["change"]), areas[1] - areas[0], atol=1e-5)
            assert (kind in table) == (max(areas) > 0)
        mask = np.asarray(Image.open(place / "lost.png"))
        gone = [k for k in (1, 2, 3) if (labels[1] == k).sum() < 0.5 * (labels[0] == k).sum()]
        np.testing.assert_array_equal(mask == 255, np.isin(labels[0], gone) & (labels[0] != labels[1]))
        np.testing.assert_array_equal(mask == 128, ~np.isin(labels[0], gone) & (labels[0] != labels[1]))
        assert set(row["lost"]) == {CLASSES[k] for k in gone} and ("red" in row["lost"]) == (name != "a")
        sheet, where = viz.read_png(place / "pair.png"), pairs.places(*chain.image[:2])
        for labels_of, left in zip(labels, where.lefts, strict=True):
            shown = sheet[where.tops[1] : where.tops[1] + where.size[0], left : left + where.size[1]]
            np.testing.assert_array_equal(shown, seeing_overlay.render(labels_of, seeing_overlay.palette(), size=where.size))


def test_photos_are_ranked_by_the_lost_area_of_a_class(chain, folder, finished):
    out, found = finished
    assert [(row["photo"], row["lost"]) for row in found["ranking"]["red"]] == [("b", True), ("c", True)]
    np.testing.assert_allclose([row["loss"] for row in found["ranking"]["red"]], [36 / 256, 16 / 256], atol=1e-6)
    lines = [line for line in csv.DictReader((out / "ranking.csv").read_text().splitlines()) if line["ranked"] == "red"]
    assert [(line["ranked"], line["rank"], line["name"]) for line in lines] == [("red", "1", "b"), ("red", "2", "c")]
    again = run(chain, options(folder, out, rank=("dark",)))  # another ranking searches nothing again
    assert set(again["ranking"]) == {"dark"} and again["table"] == found["table"]
    assert run(chain, options(folder, out))["ranking"] == found["ranking"]


def test_a_finished_run_is_not_computed_again(chain, folder, finished):
    said = []
    assert run(chain, options(folder, finished[0], batch=1), say=said.append) == json.loads((finished[0] / "invert.json").read_text())
    assert "already finished" in said[0]


def test_interrupted_and_started_again_it_gives_the_same(chain, folder, finished, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(command.stopping.Stop, "__call__", lambda self, step: step == 2)
        run(chain, options(folder, out))
    assert json.loads((out / "invert.json").read_text())["state"] == "unfinished"
    assert not (out / "a").exists() and list((out / ".search").rglob("*.safetensors"))
    begun = []
    monkeypatch.setattr(command.stopping.Stop, "__call__", lambda self, step: begun.append(step))
    found = run(chain, options(folder, out))
    whole, uninterrupted = finished
    assert begun == []  # the last two of four steps were left
    for name in "abc":
        one, other = codes.read(out / name), codes.read(whole / name)
        for part in ("corrections", "activations"):
            for layer, array in getattr(one, part).items():
                np.testing.assert_array_equal(array, getattr(other, part)[layer])
    for one, other in zip(found["table"], uninterrupted["table"], strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
    assert not (out / ".search").exists()


def test_a_photo_alone_gets_what_it_gets_among_others(chain, folder, finished, tmp_path):
    run(chain, options(folder / "b.png", tmp_path / "out"))
    one, other = codes.read(tmp_path / "out" / "b"), codes.read(finished[0] / "b")
    for layer, array in one.corrections.items():
        np.testing.assert_allclose(array, other.corrections[layer], atol=2e-5)


class Encoder(NamedTuple):
    arrays: dict
    encode: object


def encoder(chain: chains.Chain, seed: int) -> Encoder:
    """Latents by a random linear map of the image's means, and the activation at the target of those."""
    kernel = np.random.default_rng(seed).normal(scale=0.3, size=(3, int(np.prod(chain.latent)))).astype(np.float32)

    def encode(arrays, images):
        latents = (images.mean((1, 2)) @ arrays["kernel"]).reshape(-1, *chain.latent)
        return {"z": latents, chain.target: chain.run(arrays["chain"], latents, keep=(chain.target,))[1][chain.target]}

    return Encoder({"kernel": kernel, "chain": chain.arrays}, encode)


@pytest.fixture(scope="module")
def compared(chain, tmp_path_factory):
    """Four methods on two of the generator's own images."""
    out = tmp_path_factory.mktemp("compared") / "run"
    networks = command.Networks(encoder=encoder(chain, 0), end_to_end=encoder(chain, 1))
    chosen = options("", out, images=(), generated=2, method=tuple("fbde"), encoder="E", end_to_end="F", latent_steps=2)
    return out, run(chain, dataclasses.replace(chosen, latent_optimiser="adam"), networks=networks), networks


def test_methods_are_compared_in_one_table_with_the_truth_that_is_known(chain, compared):
    out, found, networks = compared
    assert [(row["name"], row["method"]) for row in found["table"]] == [(f"generated-000{i}", m) for i in (0, 1) for m in "bdef"]
    assert list(found["summary"]["methods"]) == list("bdef") and found["summary"]["main"] == "f"
    truth = pictures.generated(chain, 2, 0)
    for row in found["table"]:
        place = out / row["name"] / ("" if row["method"] == "f" else row["method"])
        inversion = codes.read(place, chain)
        assert inversion.about["method"] == row["method"]
        image, true = truth[row["name"]]
        np.testing.assert_array_equal(viz.read_png(out / row["name"] / "target.png"), image)
        np.testing.assert_allclose(row["correlation_z"], np.corrcoef(inversion.latent.ravel(), true["z"].ravel())[0, 1], rtol=1e-4)
        if row["method"] in "bd":  # the encoder's own answer
            used = networks.end_to_end if row["method"] == "b" else networks.encoder
            own = np.asarray(used.encode(used.arrays, (image / 127.5 - 1)[None].astype(np.float32))["z"])[0]
            np.testing.assert_allclose(inversion.latent, own, rtol=1e-4, atol=1e-5)
            assert row.get("steps") is None
    means = found["summary"]["methods"]
    expected = np.mean([row["activation_error"] for row in found["table"] if row["method"] == "e"])
    np.testing.assert_allclose(means["e"]["activation_error"], expected, rtol=1e-9)
    assert viz.read_png(out / "generated-0000" / "methods.png").shape[1] > 5 * 256
    lines = list(csv.DictReader((out / "photos.csv").read_text().splitlines()))
    assert len(lines) == 8 and {line["method"] for line in lines} == set("bdef")


def test_another_encoder_is_another_run(chain, compared):
    out, _, networks = compared
    chosen = options("", out, images=(), generated=2, method=tuple("fbde"), encoder="E", end_to_end="F", latent_steps=2)
    with pytest.raises(ValueError, match="of its encoder, sha256 is"):
        run(chain, dataclasses.replace(chosen, latent_optimiser="adam"), networks=networks._replace(encoder=encoder(chain, 3)))


def test_smaller_images_are_compared_where_asked_and_whole_ones_written(chain, folder, tmp_path):
    found = run(chain, options(folder / "b.png", tmp_path / "out", resolution=8, steps=1))
    result = viz.read_png(tmp_path / "out" / "b" / "result.png")
    assert result.shape == chain.image
    small = [image.reshape(8, 2, 8, 2, 3).mean((1, 3)) / 127.5 - 1 for image in (viz.read_png(folder / "b.png"), result)]
    np.testing.assert_allclose(found["table"][0]["pixel_error"], 100 * np.square(small[0] - small[1]).mean(), rtol=0.01)  # 8 bits
    assert "of 1 photos" not in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_a_search_of_the_latent_can_come_before_the_corrections(chain, folder, tmp_path):
    found = run(chain, options(folder / "b.png", tmp_path / "out", start="search", latent_steps=8, latent_optimiser="adam"))
    inversion = codes.read(tmp_path / "out" / "b", chain)
    np.testing.assert_array_equal(inversion.start, inversion.latent)  # what is left to the corrections
    assert np.abs(inversion.start - np.asarray(chain.mean(chain.arrays))).max() > 0.1
    assert found["summary"]["methods"]["f"]["name"] == "mean latent, search of the latent, then corrections of layers"


def test_codes_of_an_embedding_are_a_start(chain, folder, tmp_path):
    chain = chain._replace(family="stylegan", latent=(5, 4))  # nothing is drawn here
    code = np.random.default_rng(0).normal(size=chain.latent).astype(np.float32)
    (tmp_path / "codes").mkdir()
    about = {"generator": "d", "family": "stylegan", "rows": 5, "w_size": 4}
    code_files.write_code(tmp_path / "codes" / "a.safetensors", code, about=about)
    start = f"codes:{tmp_path / 'codes'}"
    photos, _ = photo_reading.accept(photo_reading.find([folder / "a.png"]), chain.image[:2], options(folder, ""))
    starts = command._starts(chain, options(folder, "", start=start), photos)
    np.testing.assert_array_equal(command._code(chain, *starts["a"]), code)
    with pytest.raises(ValueError, match="has changed since"):
        command._code(chain, starts["a"][0], "0" * 64)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        run(chain, options(folder / "b.png", tmp_path / "out", start=start))
    with pytest.raises(ValueError, match="code of another generator"):
        run(chain._replace(digest="f" * 64), options(folder / "a.png", tmp_path / "out", start=start))
    assert not (tmp_path / "out").exists()


def test_the_page_needs_nothing_but_itself_and_names_what_was_lost(finished, compared):
    for out, found in (finished, compared[:2]):
        page = (out / "report.html").read_text()
        assert not re.search(r'(src|href)="(?!data:|#)', page) and "default-src 'none'" in page
        assert all(row["name"] in page for row in found["table"])
    page = (finished[0] / "report.html").read_text()
    assert "lost: <b>red</b> in 2 of 2 photos that hold it" in page and "all pairs" in page
    assert page.count('class="tile four"') == 3 and page.count('class="tile pair"') >= 2
    assert all(f"<td class=name>{method} " in (compared[0] / "report.html").read_text() for method in "bdef")


def refused(chain, chosen: Options, **keywords) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        run(chain, chosen, **keywords)
    return str(caught.value)


def test_what_cannot_be_done_is_said_before_anything_is_written(chain, folder, tmp_path):
    out = tmp_path / "out"
    wide = tmp_path / "wide.png"
    Image.fromarray(np.zeros((16, 32, 3), np.uint8)).save(wide)
    (tmp_path / "text.png").write_text("no image")
    words = refused(chain, options(wide, out))
    assert "32x16" in words and "16x16" in words and "--crop center" in words
    assert "text.png" in refused(chain, options(tmp_path / "text.png", out))
    assert "does not exist" in refused(chain, options(tmp_path / "absent", out))
    words = refused(chain, options(folder, out, layers=("layer99",)))
    assert "layer99" in words and chain.names[0] in words
    assert "does not divide" in refused(chain, options(folder, out, resolution=3))
    assert "--rank 'rde'" in refused(chain, options(folder, out, rank=("rde",)))
    assert "nearest: red" in refused(chain, options(folder, out, rank=("rde",)))
    assert "cannot label" in refused(chain, options(folder, out), segmenter=Segmenter("labels", (), by_colour, None, "labels"))
    assert "--encoder" in refused(chain, options(folder, out, method=("d",)))
    assert "--end_to_end" in refused(chain, options(folder, out, method=("b",)))
    assert "perceptual" in refused(chain, options(folder, out, perceptual_weight=1.0))
    assert "search or codes:PATH" in refused(chain, options(folder, out, start="mean"))
    assert "--generated" in refused(chain, options(folder, out, images=()))
    assert not out.exists()
    assert run(chain, options(wide, out, crop="center"))["state"] == "finished"


def test_a_folder_with_another_run_or_other_files_is_left_alone(chain, folder, finished, tmp_path):
    out, _ = finished
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    other = dataclasses.replace(SEGMENTER, classes=("void", "night", "day", "red"))
    words = refused(chain, options(folder, out), segmenter=other)
    assert "segmenter" in words and "dark" in words and "night" in words
    assert "identity" in refused(chain, options(folder, out), segmenter=dataclasses.replace(SEGMENTER, identity="toy 2"))
    assert "learning_rate is 0.01 there and 0.02 here" in refused(chain, options(folder, out, learning_rate=0.02))
    assert "its generator is sha256" in refused(chain._replace(digest="e" * 64), options(folder, out))
    assert "b is only there" in refused(chain, options(folder / "a.png", out))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    (tmp_path / "mine.txt").write_text("x")
    assert "not empty" in refused(chain, options(folder, tmp_path))


def test_bad_photos_are_left_out_on_request_and_named(chain, folder, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes((folder / "a.png").read_bytes())
    (tmp_path / "photos" / "bad.png").write_text("no image")
    found = run(chain, options(tmp_path / "photos", tmp_path / "out", skip_bad=True))
    assert [row["name"] for row in found["table"]] == ["a"] and "bad.png" in found["warnings"][0]
    assert "bad.png" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_the_encoders_of_a_run_begin_the_search_and_those_of_another_generator_are_refused(tmp_path):
    experiment = configure.load_config(CONFIGS / "layer_inversion_scenes.py", "tiny")
    train.train(experiment, tmp_path / "encoders", quiet=True)
    chain = layer_inversion.open_generator(experiment.model.generator)
    photograph(chain, tmp_path / "photos")
    chosen = options(tmp_path / "photos", tmp_path / "out", encoder=str(tmp_path / "encoders"), method=("d", "f"))
    encoder = layer_inversion.open_encoder(tmp_path / "encoders", chain)
    found = run(chain, chosen, networks=command.Networks(encoder=encoder))
    photo = viz.read_png(tmp_path / "photos" / "b.png")[None] / np.float32(127.5) - 1
    estimate = np.asarray(encoder.encode(encoder.arrays, photo)["z"])[0]
    for place in ("b", "b/d"):
        # photos in one batch and one alone: processors round these sums differently, by 2e-5 where it was seen
        np.testing.assert_allclose(codes.read(tmp_path / "out" / place, chain).start, estimate, rtol=1e-3, atol=2e-4)
    errors = {row["method"]: row["pixel_error"] for row in found["table"] if row["name"] == "b"}
    assert errors["f"] < errors["d"]
    with pytest.raises(ValueError, match="encoders of another generator"):
        other = layer_inversion.open_generator("untrained:6-6-4-4")
        command.run(dataclasses.replace(chosen, out=str(tmp_path / "other")), chain=other, segmenter=SEGMENTER)
    assert not (tmp_path / "other").exists()


MODULE = """import numpy as np
def label(images):
    return (images.mean(-1) > 127).astype(np.int64)
label.classes = ("dark", "bright")
"""


def test_the_command_line_inverts_with_a_segmenter_of_ones_own(chain, tmp_path, capsys, monkeypatch):
    viz.write_png(tmp_path / "photo.png", np.full(chain.image, 200, np.uint8))
    (tmp_path / "own_segmenter.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "open_chain", lambda path: chain)
    monkeypatch.setattr(command, "open_networks", lambda *_: BARE)
    argv = ["invert", "--generator", "generator", "--segmenter", "own_segmenter:label", "--out", "out", "--images", "photo.png"]
    argv += ["--steps", "4", "--perceptual_weight", "0", "--rank", "bright"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "most bright lost: photo" in printed and "report.html" in printed
    assert (tmp_path / "out" / "photo" / "pair.png").is_file()
    for wrong, words in ((["--methd", "f"], "nearest: --method"), (["--method", "g"], "'g' is not one of a, b, c, d, e, f")):
        assert main([*argv[:-2], *wrong]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
