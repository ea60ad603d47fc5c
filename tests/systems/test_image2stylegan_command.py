"""`jaxgan embed` on a folder: what it leaves, how it goes on, what it refuses before anything is written."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json

import numpy as np
import pytest
import small_style
from PIL import Image

from jaxgan import code_files, viz
from jaxgan import photos as reading
from jaxgan.__main__ import main
from jaxgan.nets.bisenet import CLASSES
from jaxgan.systems import image2stylegan as method
from jaxgan.systems import image2stylegan_alignment as alignment
from jaxgan.systems import image2stylegan_command as command
from jaxgan.systems import image2stylegan_files as files
from jaxgan.systems.image2stylegan_options import Options

OPTIONS = Options(perceptual_weight=0.0, learning_rate=0.05, steps=10, batch=3)
NONE = method.Networks(about={"vgg": None})


@pytest.fixture(scope="module")
def style():
    return small_style.generator()


@pytest.fixture(scope="module")
def folder(style, tmp_path_factory):
    """Two photos of the generator's size and one larger and not square."""
    place = tmp_path_factory.mktemp("photos")
    images = np.clip(small_style.drawn(style, 3)[1], -1, 1)
    for name, image in zip("ab", images, strict=False):
        viz.write_png(place / f"{name}.png", image)
    Image.fromarray(viz.to_uint8(images[2]).repeat(6, 0).repeat(4, 1)).save(place / "c.jpg")
    return place


@pytest.fixture(scope="module")
def finished(style, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "run"
    return out, command.run(style, [folder], out, dataclasses.replace(OPTIONS, resolution=4, film=True), networks=NONE)


def test_the_output_holds_what_the_table_says(style, finished):
    out, run = finished
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "c", "embed.json", "sheet.png"]
    assert json.loads((out / "embed.json").read_text()) == run and run["state"] == "finished"
    assert run["options"]["resize_kernel"] == "area" and run["options"]["taps"]  # what the paper leaves open is recorded
    for row in run["table"]:
        place = out / row["name"]
        code = code_files.read_code(place, style)
        target, result = (viz.read_png(place / f"{name}.png").astype(np.float64) for name in ("target", "result"))
        assert target.shape == (4, 4, 3) and viz.read_png(place / "full.png").shape == (8, 8, 3)
        np.testing.assert_allclose(row["psnr"], 10 * np.log10(255**2 / np.square(target - result).mean()), rtol=1e-6)
        assert row["psnr"] > row["psnr_before"] and row["lpips"] is None
        drawn = np.asarray(style.synthesise(style.arrays, code.code[None], style.noise(style.arrays)))[0]
        assert np.abs(viz.to_uint8(drawn).astype(int) - viz.read_png(place / "full.png")).max() <= 1
        np.testing.assert_allclose(row["distance"], np.linalg.norm(code.code - np.asarray(style.w_avg(style.arrays))), rtol=1e-5)
        assert code.about["space"] == "w+" and code.about["options"]["learning_rate"] == 0.05
        rows = list(csv.DictReader((place / "history.csv").read_text().splitlines()))
        assert [int(line["step"]) for line in rows] == list(range(11))
        np.testing.assert_allclose(float(rows[-1]["loss"]), row["loss"], rtol=1e-5)
        assert (place / "film.mp4").stat().st_size > 500
    assert viz.read_png(out / "sheet.png").shape[0] > 3 * 96


def test_a_finished_run_is_not_computed_again(style, folder, finished):
    out, run = finished
    said = []
    again = command.run(
        style, [folder], out, dataclasses.replace(OPTIONS, resolution=4, film=True, batch=1), networks=NONE, say=said.append
    )
    assert again == run and "already finished" in said[0]


def test_interrupted_and_started_again_it_gives_the_same(style, folder, tmp_path, monkeypatch):
    photos, options = [folder / "a.png", folder / "b.png"], dataclasses.replace(OPTIONS, batch=1)
    whole = command.run(style, photos, tmp_path / "whole", options, networks=NONE)
    monkeypatch.setattr(command.stopping.Stop, "__call__", lambda self, step: step == 5)
    monkeypatch.setattr(command, "CHUNK", 5)
    with pytest.raises(method.Interrupted):
        command.run(style, photos, tmp_path / "run", options, networks=NONE)
    assert json.loads((tmp_path / "run" / "embed.json").read_text())["state"] == "unfinished"
    monkeypatch.undo()
    again = command.run(style, photos, tmp_path / "run", options, networks=NONE)
    for one, other in zip(whole["table"], again["table"], strict=True):
        assert {key: one[key] for key in one if key != "seconds"} == {key: other[key] for key in other if key != "seconds"}
    assert not (tmp_path / "run" / ".search").exists()


@pytest.mark.slow
def test_a_photo_among_others_and_alone_gets_one_code(style, folder, tmp_path):
    options = dataclasses.replace(OPTIONS, start="random")
    command.run(style, [folder / "a.png", folder / "b.png"], tmp_path / "all", options, networks=NONE)
    command.run(style, [folder / "b.png"], tmp_path / "one", options, networks=NONE)
    codes = [code_files.read_code(tmp_path / place / "b", style).code for place in ("all", "one")]
    np.testing.assert_allclose(*codes, atol=1e-4)


def test_it_goes_on_from_the_codes_of_an_earlier_run(style, folder, finished, tmp_path):
    out, earlier = finished
    options = dataclasses.replace(OPTIONS, resolution=4, steps=1, start=f"run:{out}")
    run = command.run(style, [folder], tmp_path / "run", options, networks=NONE)
    for before, after in zip(earlier["table"], run["table"], strict=True):
        np.testing.assert_allclose(after["loss_before"], before["loss"], rtol=1e-4)


def test_a_batch_that_is_written_leaves_no_state_and_warnings_outlive_a_stop(style, folder, tmp_path, monkeypatch):
    """Stopped in the second of two batches; the photo of that one is then replaced."""
    photos = [tmp_path / "a.png", tmp_path / "b.png"]
    for photo in photos:
        photo.write_bytes((folder / photo.name).read_bytes())
    options, out, batches = dataclasses.replace(OPTIONS, steps=2, batch=1), tmp_path / "run", []

    def embed(*arguments, saved, watch, **keywords):
        batches.append(saved)
        if len(batches) == 2:
            saved.mkdir()
            raise method.Interrupted("stopped")
        return embedded(*arguments, saved=saved, watch=watch, **keywords)

    embedded = method.embed
    monkeypatch.setattr(method, "embed", embed)
    monkeypatch.setattr(alignment, "warnings_of", lambda photos, options: ["a: the face lies 9% too far left"])
    with pytest.raises(method.Interrupted):
        command.run(style, photos, out, options, networks=NONE, check_alignment=True)
    assert list((out / ".search").iterdir()) == batches[1:]
    checked = reading.check

    def replaced(*arguments):
        found = checked(*arguments)
        photos[1].write_bytes((folder / "a.png").read_bytes())
        return found

    with monkeypatch.context() as patch, pytest.raises(ValueError, match="b.png has changed since"):
        patch.setattr(reading, "check", replaced)
        command.run(style, photos, out, options, networks=NONE)
    photos[1].write_bytes((folder / "b.png").read_bytes())
    monkeypatch.setattr(command.output, "SHEET_ROWS", 1)
    run = command.run(style, photos, out, options, networks=NONE)
    assert run["warnings"] == ["a: the face lies 9% too far left"] and run["state"] == "finished"
    assert 96 < viz.read_png(out / "sheet.png").shape[0] < 2 * 96 and "the first 1 of 2 photos" in command.report(run, out)


def test_starts_and_masks_that_change_during_a_run_are_noticed(style, finished, folder, tmp_path):
    out, _ = finished
    starts = command._starts(
        style, dataclasses.replace(OPTIONS, start=f"run:{out}").resolved(), reading.check(reading.find([folder]), (8, 8), OPTIONS)[0]
    )
    np.testing.assert_array_equal(command._load_starts(style, starts, [1])["code"][0], code_files.read_code(out / "b").code)
    with pytest.raises(ValueError, match="has changed since"):
        command._load_starts(style, starts._replace(digests=["0"] * 3), [1])
    digest = hashlib.sha256((folder / "a.png").read_bytes()).hexdigest()
    assert command._companion((folder / "a.png", digest), 8, OPTIONS, 1).shape == (8, 8, 1)
    with pytest.raises(ValueError, match="has changed since"):
        command._companion((folder / "b.png", digest), 8, OPTIONS)


def test_noise_maps_and_a_batchs_state_count_as_disk(style):
    """In bytes, by hand: the projector's noise is kept; Adam's state is four copies of what is searched, twice while it is replaced."""
    maps = 4 * sum(np.asarray(array).size for array in style.noise(style.arrays).values())
    code = 4 * style.rows * style.w_size
    options = [dataclasses.replace(OPTIONS, method=name, perceptual_weight=1.0).resolved() for name in ("image2stylegan", "projector")]
    plain, noisy = (command._sizes(style, method.Problem(one, 8, {}, (), None, NONE), 5, False) for one in options)
    assert plain == (5 * (12 * 64 + code), 3 * 8 * code)
    assert noisy == (5 * (12 * 64 + code + maps), 3 * 8 * (code + maps))


def refused(folder, out, *arguments, **keywords):
    style = keywords.pop("style", None) or small_style.generator()
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        command.run(style, [folder], out, *arguments, networks=NONE, **keywords)
    assert not out.exists()
    return str(caught.value)


def test_a_bad_photo_is_named_with_its_reason_and_nothing_is_written(style, folder, tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    (place / "whole.png").write_bytes((folder / "a.png").read_bytes())
    (place / "cut.jpg").write_bytes((folder / "c.jpg").read_bytes()[:200])
    (place / "text.png").write_text("no image")
    words = refused(place, tmp_path / "out", OPTIONS)
    assert "2 of 3 photos" in words and "cut.jpg" in words and "text.png" in words and "--skip-bad" in words
    run = command.run(style, [place], tmp_path / "out", dataclasses.replace(OPTIONS, steps=1), networks=NONE, skip_bad=True)
    assert [row["name"] for row in run["table"]] == ["whole"] and len(run["rejects"]) == 2


def test_a_code_of_another_generator_is_no_start(folder, finished, tmp_path):
    other = small_style.generator(seed=5, digest="1" * 64)
    words = refused(folder, tmp_path / "out", dataclasses.replace(OPTIONS, start=f"run:{finished[0]}"), style=other)
    assert "another generator" in words and "000000" in words and "111111" in words


def test_what_cannot_be_done_is_said_before_anything_is_written(folder, style, tmp_path):
    out = tmp_path / "out"
    assert "W+ is W" in refused(folder, out, OPTIONS, style=style._replace(rows=1))
    assert "does not divide" in refused(folder, out, dataclasses.replace(OPTIONS, resolution=3))
    assert "no output of `jaxgan embed`" in refused(folder, out, dataclasses.replace(OPTIONS, start=f"run:{folder}"))
    assert "--vgg" in refused(folder, out, Options())
    assert "does not exist" in refused(tmp_path / "absent", out, OPTIONS)
    assert "image2stylegan++" in refused(folder, out, OPTIONS, mask=folder)
    plus = dataclasses.replace(OPTIONS, method="image2stylegan++")
    (tmp_path / "masks").mkdir()
    assert "no file for the photo a" in refused(folder, out, plus, mask=tmp_path / "masks")
    assert "--outside-weight" in refused(folder, out, plus, mask=folder, other=folder)


def test_a_folder_with_another_run_or_other_files_is_left_alone(style, folder, finished, tmp_path):
    out, _ = finished
    before = sorted(path.name for path in out.rglob("*"))
    with pytest.raises(ValueError, match="learning_rate is 0.05 there and 0.01 here"):
        command.run(style, [folder], out, dataclasses.replace(OPTIONS, resolution=4, film=True, learning_rate=0.01), networks=NONE)
    with pytest.raises(ValueError, match="c is only there"):
        photos = [folder / "a.png", folder / "b.png"]
        command.run(style, photos, out, dataclasses.replace(OPTIONS, resolution=4, film=True), networks=NONE)
    assert sorted(path.name for path in out.rglob("*")) == before
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="not empty"):
        command.run(style, [folder], tmp_path, OPTIONS, networks=NONE)


def test_names_of_results_are_folders_of_their_own(tmp_path):
    for name in ("a.png", "a.jpg", "b/c.png", "sheet.png.jpg", "Embed.json.png", ".search.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert sorted(reading.find([tmp_path], files.RESERVED)) == ["Embed.json_", "a.jpg", "a.png", "b_c", "search", "sheet.png_"]
    with pytest.raises(ValueError, match="twice"):
        reading.find([tmp_path, tmp_path / "a.png"])
    (tmp_path / f"{'ä' * 101}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="202 bytes; at most 200"):
        reading.find([tmp_path])


def test_crops(tmp_path):
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    shown = {crop: reading.read(tmp_path / "wide.png", (8, 8), Options(crop=crop, filter="box"))[0] for crop in ("center", "none", "pad")}
    assert (shown["center"] == 255).all()
    assert (shown["none"][:, 2:6] == 255).all() and (shown["none"][:, :2] == 0).all()
    assert (shown["pad"][:2] == 128).all() and (shown["pad"][2:6, 2:6] == 255).all()


def test_faces_out_of_place_are_noticed():
    def face(x=0.5, y=0.472, scale=1.0, tilt=0.0):
        labels = np.zeros((256, 256), np.int32)
        rows, columns = (np.mgrid[:256, :256] + 0.5) / 256
        turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
        for name, (dx, dy) in {"l_eye": (-0.12, 0), "r_eye": (0.12, 0), "u_lip": (0, 0.2777)}.items():
            cx, cy = np.array([x, y]) + scale * turn @ (dx, dy)
            labels[(columns - cx) ** 2 + (rows - cy) ** 2 < 0.02**2] = CLASSES.index(name)
        return alignment.judge(labels)

    assert face() == ""
    assert "right" in face(x=0.65) and "down" in face(y=0.6)
    assert "too large" in face(scale=1.5) and "too small" in face(scale=0.5)
    assert "degrees" in face(tilt=0.4)
    assert "upside down" in face(y=0.528, tilt=np.pi) and "upside down" not in face(tilt=0.4)
    assert "cannot be judged" in alignment.judge(np.zeros((64, 64), np.int32))


def test_the_command_line_names_mistakes_in_one_line(tmp_path, capsys):
    arguments = ["embed", "--generator", str(tmp_path), "--images", str(tmp_path), "--out", str(tmp_path / "out")]
    for wrong, words in ((["--space", "wplus"], "use one of z, w, w+"), (["--stepps", "3"], "--steps"), ([], "neither a workdir")):
        assert main([*arguments, *wrong]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
