"""`jaxgan sample` and `jaxgan edit` on a tiny StyleGAN: what is drawn where, and what is refused before anything is written."""

import json

import numpy as np
import pytest
import style_toy

from jaxgan import code_files, edits, films, viz
from jaxgan.__main__ import main
from jaxgan.edit import _draw
from jaxgan.style_generators import open_style_generator, renderer


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A generator, four codes of it, and a code of another generator."""
    room = tmp_path_factory.mktemp("edit")
    style_toy.write_folder(room / "g")
    style_toy.write_folder(room / "other", seed=1)
    assert main(["sample", str(room / "g"), "--out", str(room / "c"), "--n", "4", "--codes", "True", "--psi", "1"]) == 0
    assert main(["sample", str(room / "other"), "--out", str(room / "o"), "--n", "1", "--codes", "True"]) == 0
    return room


@pytest.fixture(scope="module")
def generator(room):
    return open_style_generator(room / "g")


@pytest.fixture(scope="module")
def codes(room, generator):
    return [code_files.read_code(room / "c" / f"{i:06d}.safetensors", generator).code for i in range(4)]


@pytest.fixture(scope="module")
def draw(generator):
    render = renderer(generator, batch=1)
    return lambda code: render(np.asarray(code)[None])[0]


def edit(room, command, numbers, out, *options):
    paths = [str(room / "c" / f"{i:06d}.safetensors") for i in numbers]
    return main(["edit", command, *paths, "--generator", str(room / "g"), "--out", str(out), *map(str, options)])


def cells(path, columns, side=16):
    """uint8 [rows, columns, side, side, 3] of a table; values drawn in other blocks may be one grey level off."""
    sheet = viz.read_png(path).astype(int)
    rows = (sheet.shape[0] + 2) // (side + 2)
    assert sheet.shape == (rows * (side + 2) - 2, columns * (side + 2) - 2, 3)
    return np.stack([[sheet[r * 18 : r * 18 + side, c * 18 : c * 18 + side] for c in range(columns)] for r in range(rows)])


def test_samples_are_the_pictures_of_their_codes_however_many_are_drawn(room, codes, draw, tmp_path):
    for i, code in enumerate(codes):
        assert np.abs(viz.read_png(room / "c" / f"{i:06d}.png").astype(int) - draw(code)).max() <= 1
    assert main(["sample", str(room / "g"), "--out", str(tmp_path / "two.png"), "--n", "2", "--psi", "1"]) == 0
    assert np.abs(cells(tmp_path / "two.png", 1)[1, 0] - draw(codes[1])).max() <= 1


def test_truncated_samples_are_nearer_to_the_mean_code_in_the_rows_asked_for(room, generator, codes, tmp_path):
    options = ["--n", "1", "--codes", "True", "--psi", "0.5", "--cutoff", "2"]
    assert main(["sample", str(room / "g"), "--out", str(tmp_path / "t"), *options]) == 0
    found, mean = code_files.read_code(tmp_path / "t" / "000000.safetensors").code, np.asarray(generator.w_avg(generator.arrays))
    np.testing.assert_allclose(found[:2], mean + 0.5 * (codes[0][:2] - mean), atol=1e-5)
    np.testing.assert_allclose(found[2:], codes[0][2:], atol=1e-5)


def test_a_morph_goes_through_all_codes_as_a_strip_a_film_and_code_files(room, codes, draw, tmp_path, capsys):
    film, saved = tmp_path / "m.mp4", tmp_path / "saved"
    options = ("--steps", 3, "--film", film, "--seconds", 0.5, "--fps", 10, "--save", saved)
    assert edit(room, "morph", (0, 1, 2), tmp_path / "m.png", *options) == 0
    table = cells(tmp_path / "m.png", 3)
    for row, (a, b) in enumerate([(0, 1), (1, 2)]):
        for column, share in enumerate((0, 0.5, 1)):
            assert np.abs(table[row, column] - draw(edits.morph(codes[a], codes[b], share))).max() <= 1
    assert "11 frames, 1.1 s" in capsys.readouterr().out and film.read_bytes()[4:8] == b"ftyp"
    middle = code_files.read_code(saved / "001.safetensors")
    np.testing.assert_allclose(middle.code, (codes[1] + codes[2]) / 2, atol=1e-6)
    told = middle.about["edit"]  # of the second pair: which codes these were, and how far
    header = json.loads((room / "c" / "000002.safetensors").read_bytes()[8:].split(b"}}", 1)[0] + b"}}")["__metadata__"]
    assert [one["name"] for one in told["sources"]] == ["000001", "000002"] and told["sources"][1]["sha256"] == header["arrays_sha256"]
    assert told == {"name": "morph", "sources": told["sources"], "share": 0.5}
    assert len(list(saved.iterdir())) == 2 and len(list(tmp_path.iterdir())) == 3


def test_an_output_that_cannot_be_written_is_noticed_before_anything_is_drawn(room, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("jaxgan.edit.renderer", lambda *arguments, **keywords: pytest.fail("drawn"))
    assert edit(room, "morph", (0, 1), tmp_path / "m.png", "--film", tmp_path / "file" / "m.mp4") == 2
    assert "cannot write to" in capsys.readouterr().err and not (tmp_path / "m.png").exists()


def test_each_code_of_an_edit_tells_what_it_is(room, tmp_path):
    for command, options, key, values in [
        ("crossover", ("--layer", 2, 4), "layer", [2, 4]),
        ("mixing", ("--bands", "coarse", "5"), "band", ["coarse"] * 4 + ["5"] * 4),
        ("truncation", ("--psi", 0, 1, -1), "psi", [0, -1, 0, -1]),
    ]:
        assert edit(room, command, (0, 1), tmp_path / f"{command}.png", *options, "--save", tmp_path / command) == 0
        told = [code_files.read_code(path).about["edit"] for path in sorted((tmp_path / command).iterdir())]
        assert [one[key] for one in told] == values and len({json.dumps(one) for one in told}) == len(told)


def test_noise_is_made_for_one_block_of_pictures_at_a_time(generator, codes):
    noise, made = {name: np.asarray(array) for name, array in generator.noise(generator.arrays).items()}, []
    seen = []

    def render(some, maps):
        seen.append((len(some), len(next(iter(maps.values()))), len(made)))
        return np.zeros((len(some), 16, 16, 3), np.uint8)

    found = [(codes[i % 4], lambda: made.append(1) or noise) for i in range(5)]
    assert len(_draw(generator, found, render, 2)) == 5
    assert seen == [(2, 2, 2), (2, 2, 4), (2, 2, 5)]


def test_crossovers_show_both_codes_and_every_split(room, codes, draw, tmp_path):
    assert edit(room, "crossover", (0, 1), tmp_path / "x.png", "--layer", 2, 4) == 0
    expected = [codes[0], edits.crossover(codes[0], codes[1], 2), edits.crossover(codes[0], codes[1], 4), codes[1]]
    for cell, code in zip(cells(tmp_path / "x.png", 4)[0], expected, strict=True):
        assert np.abs(cell - draw(code)).max() <= 1
    assert edit(room, "crossover", (0, 1), tmp_path / "half.png") == 0
    assert np.abs(cells(tmp_path / "half.png", 3)[0, 1] - draw(edits.crossover(codes[0], codes[1], 3))).max() <= 1


def test_a_transfer_says_how_many_rows_it_moved(room, generator, codes, draw, tmp_path, capsys):
    """The second code differs from the first in every row, by 0.6 to 1.85."""
    expressive = codes[1].copy()
    expressive[:, 2] += np.arange(2, 8, dtype=np.float32) / 4 + np.float32(0.1)
    code_files.write_code(tmp_path / "e.safetensors", expressive, about=code_files.about_generator(generator))
    paths = [*(str(room / "c" / f"{i:06d}.safetensors") for i in (0, 1)), str(tmp_path / "e.safetensors")]
    out = ["--generator", str(room / "g"), "--out", str(tmp_path / "t.png")]
    assert main(["edit", "transfer", *paths, *out, "--strength", "0.5", "-1"]) == 0
    assert "(4 of 6 rows)" in capsys.readouterr().out
    moved = [codes[0] + strength * (expressive - codes[1]) * np.float32([0, 0, 1, 1, 1, 1])[:, None] for strength in np.float32([0.5, -1])]
    for cell, code in zip(cells(tmp_path / "t.png", 5)[0], [codes[1], expressive, codes[0], *moved], strict=True):
        assert np.abs(cell - draw(code)).max() <= 1


def test_a_mixing_table_has_sources_above_and_destinations_at_the_left(room, codes, draw, tmp_path, capsys):
    others = [str(room / "c" / f"{i:06d}.safetensors") for i in (2, 3)]
    assert edit(room, "mixing", (0, 1), tmp_path / "m.png", "--destinations", *others, "--bands", "coarse", "5") == 0
    table = cells(tmp_path / "m.png", 3)
    assert table.shape[0] == 5 and (table[0, 0] == 255).all()
    for column in (0, 1):
        assert np.abs(table[0, column + 1] - draw(codes[column])).max() <= 1
        for row, (destination, rows) in enumerate([(2, range(4)), (3, range(4)), (2, [5]), (3, [5])], 1):
            assert np.abs(table[row, column + 1] - draw(edits.mix(codes[destination], codes[column], list(rows)))).max() <= 1
            assert np.abs(table[row, 0] - draw(codes[destination])).max() <= 1
    assert "coarse (rows 0-3), 5 (rows 5)" in capsys.readouterr().out


def test_truncation_draws_the_mean_code_at_psi_0(room, generator, draw, codes, tmp_path):
    assert edit(room, "truncation", (0, 1), tmp_path / "t.png", "--psi", -1, 0, 1) == 0
    table, mean = cells(tmp_path / "t.png", 3), np.asarray(generator.w_avg(generator.arrays))
    assert np.abs(table[:, 1] - draw(np.tile(mean, (6, 1)))).max() <= 1
    assert np.abs(table[1, 0] - draw(2 * mean - codes[1])).max() <= 1


def test_noise_that_belongs_to_a_code_is_drawn_with_it(room, generator, codes, tmp_path):
    noise = {name: -3 * np.asarray(array) for name, array in generator.noise(generator.arrays).items()}
    code_files.write_code(tmp_path / "a.safetensors", codes[0], noise=noise, about=code_files.about_generator(generator))
    paths = [str(tmp_path / "a.safetensors"), str(room / "c" / "000001.safetensors")]
    assert main(["edit", "morph", *paths, "--generator", str(room / "g"), "--out", str(tmp_path / "m.png"), "--steps", "3"]) == 0
    table, render = cells(tmp_path / "m.png", 3)[0], renderer(generator, batch=1)
    halves = {name: -np.asarray(array) for name, array in generator.noise(generator.arrays).items()}
    for cell, code, maps in [(table[0], codes[0], noise), (table[1], (codes[0] + codes[1]) / 2, halves), (table[2], codes[1], None)]:
        assert np.abs(cell - render(code[None], maps)[0]).max() <= 1
    assert np.abs(table[0] - render(codes[0][None])[0]).max() > 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("morph {c}/000000.safetensors --out {new}/a.png", "1 codes given; jaxgan edit morph A B [C ...]"),
        ("morph {c}/000000.safetensors {o}/000000.safetensors --out {new}/a.png", "is a code of another generator (stylegan 16 px"),
        ("morph {c}/000000.safetensors {c}/000009.safetensors --out {new}/a.png", "000009.safetensors does not exist"),
        ("morph {c}/000000.safetensors {c}/000001.png --out {new}/a.png", "not an intact safetensors file"),
        ("morph {c}/000000.safetensors {c}/000001.safetensors --out {c}/000000.png", "000000.png exists: name another file"),
        ("morph {c}/000000.safetensors {c}/000001.safetensors --out {new}/a.jpg", "name a .png file"),
        ("morph {c}/000000.safetensors {c}/000001.safetensors --out {new}/a.png --steps 1", "--steps is 1"),
        ("morph {c}/000000.safetensors {c}/000001.safetensors --out {new}/a.png --film {new}/a.gif", "is no .mp4"),
        ("morph {c}/000000.safetensors {c}/000001.safetensors --out {new}/a.png --save {c}", "exists and is not an empty folder"),
        ("morph {c}/000000.safetensors {c}/000001.safetensors --out {new}/a.png --resolution 5", "resolution 5 does not divide 16"),
        ("morph {c}/000000.safetensors {c}/000001.safetensors --out {new}/a.png --stpes 3", "unknown option --stpes; nearest: --steps"),
        ("crossover {c}/000000.safetensors {c}/000001.safetensors --out {new}/a.png --layer 7", "--layer is 7: this generator has 6 rows"),
        ("transfer {c}/000000.safetensors {c}/000001.safetensors --out {new}/a.png", "2 codes given; jaxgan edit transfer TARGET"),
        ("transfer {c}/000000.safetensors {c}/000001.safetensors {c}/000002.safetensors --out {new}/a.png --threshold -1", "--threshold"),
        ("mixing {c}/000000.safetensors --out {new}/a.png --bands fine", "coarse (0-3), middle (4-5)"),
        ("mroph {c}/000000.safetensors", "unknown command 'mroph'; nearest: morph"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(room, words, said, tmp_path, capsys):
    argv = [word.format(c=room / "c", o=room / "o", new=tmp_path / "new") for word in words.split()]
    assert main(["edit", *argv, "--generator", str(room / "g")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "new").exists() and len(list((room / "c").iterdir())) == 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--out {new}/a.png --codes True", "codes go into a folder"),
        ("--out {c}", "exists and is not an empty folder"),
        ("--out {new}/a.png --label 1", "this generator has no classes"),
        ("--out {new}/a.png --cutoff 7", "--cutoff is 7: this generator has 6 rows"),
        ("--out {new}/a.png --n 0", "--n is 0"),
        ("--out {new}/a.png --resolution 3", "resolution 3 does not divide 16; give one of 16, 8, 4"),
    ],
)
def test_samples_that_cannot_be_are_refused(room, words, said, tmp_path, capsys):
    argv = [word.format(c=room / "c", new=tmp_path / "new") for word in words.split()]
    assert main(["sample", str(room / "g"), *argv]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_a_film_is_whole_or_absent(tmp_path):
    frames = [np.full((16, 16, 3), 9 * i, np.uint8) for i in range(6)]
    assert films.write_film(tmp_path / "a.mp4", frames) == 6
    for bad, said in [(frames[:3] + [frames[0][:8]], "frame 3 is uint8"), ([frames[0][:15]], "even sides"), ([], "at least one frame")]:
        with pytest.raises(ValueError, match=said):
            films.write_film(tmp_path / "b.mp4", bad)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_the_generator_is_told_in_every_code(room, generator):
    path = room / "c" / "000003.safetensors"
    header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    about = json.loads(json.loads(header)["__metadata__"]["about"])
    assert about["generator"] == generator.digest and (about["seed"], about["psi"], about["number"]) == (0, 1.0, 3)
