"""`jaxgan swap`: what is refused before anything is written, and what a run of a small family becomes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import swap_toy
from PIL import Image

from jaxgan import configure, generators, judges, swap, swap_ablation
from jaxgan.__main__ import main
from jaxgan.arrays import read_safetensors
from jaxgan.data import clips as sets


@pytest.fixture
def family(monkeypatch):
    """A run of the toy family wherever a run is asked for: its networks are one number, averaged to another."""
    arrays = {"params/net/w": np.ones(1, np.float32), "ema/net/w": np.full(1, 2, np.float32)}

    def opened(path):
        return generators.Generator("swap_toy", swap_toy.Config(), arrays, 1200)

    monkeypatch.setattr(generators, "open_generator", opened)
    monkeypatch.setattr(sets, "open_clips", lambda data, image: CLIPS)


CLIPS = swap_toy.Clips()


def size(path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_averaged_networks_replace_the_last_ones(family):
    from jaxgan.swapping import open_swapper

    swapper, params, facts = open_swapper("run")
    assert float(params["net"]["w"][0]) == 2 and swapper.size == 16
    assert facts["step"] == 1200 and facts["family"] == "swap_toy" and len(facts["networks"]) == 64


def test_a_grid_shows_every_identity_in_every_pose(family, tmp_path):
    out = tmp_path / "grid.png"
    assert main(["swap", "grid", "run", "--data", "figures", "--out", str(out), "--identities", "3", "--poses", "4"]) == 0
    assert size(out) == (5 * 18 - 2, 4 * 18 - 2)
    sheet = np.asarray(Image.open(out))
    rows, columns = swap.chosen(CLIPS, 3, 4, 1)
    rng = np.random.default_rng((1, 5))
    poses = [CLIPS.pose(j)[int(rng.integers(0, CLIPS.length(j)))] for j in columns]
    for r, i in enumerate(rows):
        np.testing.assert_array_equal(sheet[18 * (r + 1) : 18 * (r + 1) + 16, :16], CLIPS.frame(i, 0))
        for c, pose in enumerate(poses):
            truth, _ = swap_toy.render(CLIPS.identity[i], pose)
            np.testing.assert_array_equal(sheet[18 * (r + 1) : 18 * (r + 1) + 16, 18 * (c + 1) : 18 * (c + 1) + 16], truth)


def test_a_map_of_verifiability_stands_beside_each_image_on_request(family, tmp_path):
    out = tmp_path / "grid.png"
    words = ["--identities", "2", "--poses", "2", "--verifiability", "True"]
    assert main(["swap", "grid", "run", "--out", str(out), *words]) == 0
    assert size(out) == (3 * 34 - 2, 3 * 18 - 2)


def test_a_clip_is_driven_by_another_as_a_strip_and_a_film(family, tmp_path):
    out, film = tmp_path / "drive.png", tmp_path / "drive.mp4"
    assert main(["swap", "drive", "run", "--out", str(out), "--identity", "0", "--driver", "2", "--film", str(film)]) == 0
    assert size(out) == (5 * 18 - 2, 2 * 18 - 2) and film.stat().st_size > 0
    sheet = np.asarray(Image.open(out))
    truth, _ = swap_toy.render(CLIPS.identity[0], CLIPS.pose(2)[3])
    np.testing.assert_array_equal(sheet[18:34, 72:88], truth)


def test_ways_between_codes_begin_and_end_at_the_two_clips(family, tmp_path, monkeypatch):
    monkeypatch.setattr(swap_toy, "swapper", lambda config: swap_toy.make("identity"))
    out = tmp_path / "way.png"
    words = ["--along", "identity", "--clips", "1", "3", "--steps", "5"]
    assert main(["swap", "interpolate", "run", "--out", str(out), *words]) == 0
    assert size(out) == (5 * 18 - 2, 16)
    sheet = np.asarray(Image.open(out))
    np.testing.assert_array_equal(sheet[:, :16], CLIPS.frame(1, 0))
    np.testing.assert_array_equal(sheet[:, -16:], CLIPS.frame(3, 0))


def test_codes_are_written_with_their_clip_and_frame(family, tmp_path):
    out = tmp_path / "codes.safetensors"
    assert main(["swap", "codes", "run", "--out", str(out), "--clips", "5", "--frames", "3"]) == 0
    arrays, metadata = read_safetensors(out)
    assert arrays["identity"].shape == (15, 6) and arrays["pose"].shape == (15, 4)
    assert arrays["clip"].tolist() == sorted(list(range(5)) * 3) and arrays["frame"].tolist() == [0, 1, 2] * 5
    np.testing.assert_array_equal(arrays["identity"].argmax(1), CLIPS.identity[arrays["clip"]] @ [2, 1])
    assert json.loads(metadata["about"])["set digest"] == CLIPS.digest


@pytest.mark.slow
def test_scores_are_written_and_the_judges_are_kept(family, tmp_path, capsys, monkeypatch):
    out = tmp_path / "scores"
    few = ["--n", "20", "--judge_steps", "4", "--probe_steps", "4", "--audit_steps", "4"]
    words = ["swap", "evaluate", "run", "--out", str(out), "--judges", str(tmp_path / "judges"), *few]
    assert main(words) == 0, capsys.readouterr().err
    scores = json.loads((out / "scores.json").read_text())
    assert scores["protocol"]["step"] == 1200 and scores["table"]["model"]["PSNR"] == "inf"
    assert "copies x_j" in (out / "scores.txt").read_text()
    monkeypatch.setattr(judges, "train", lambda *a, **k: pytest.fail("the judges were there"))
    assert main(words) == 0
    few[3], none = "0", tmp_path / "none"  # without judges: no figures of theirs, the rest is there
    assert main(["swap", "evaluate", "run", "--out", str(none), *few]) == 0
    row = json.loads((none / "scores.json").read_text())["table"]["model"]
    assert row["PSNR"] == "inf" and "ID hue" not in row and [path.name for path in none.iterdir() if "judges" in path.name] == []


@pytest.mark.parametrize(
    "words, said",
    [
        (["grid", "run", "--out", "grid.gif"], "name a .png file"),
        (["codes", "run", "--out", "codes.png"], "name a .safetensors file"),
        (["grid", "run", "--out", "there.png"], "exists"),
        (["evaluate", "run", "--out", "there.png"], "which is a file"),
        (["grid", "run", "--out", "a.png", "--poses", "0"], "give at least 1"),
        (["grid", "run", "--out", "a.png", "--poses", "30"], "of 24 clips"),
        (["drive", "run", "--out", "a.png", "--driver", "99"], "clips 0 to 23"),
        (["drive", "run", "--out", "a.png", "--film", "a.gif"], "no .mp4"),
        (["interpolate", "run", "--out", "a.png", "--steps", "1"], "both ends"),
        (["interpolate", "run", "--out", "a.png", "--along", "time"], "identity, pose or both"),
        (["grid", "--out", "a.png"], "the run comes first"),
        (["gird", "run"], "nearest: grid"),
        (["grid", "run", "--out", "a.png", "--pose", "3"], "nearest: --poses"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(family, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_bytes(b"x")
    assert main(["swap", *words]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]


def test_a_run_of_another_family_and_a_folder_without_a_run_are_named(tmp_path, monkeypatch, capsys):
    assert main(["swap", "grid", str(tmp_path / "none"), "--out", str(tmp_path / "a.png")]) == 2
    assert "does not exist" in capsys.readouterr().err
    other = generators.Generator("coco_gan", None, {}, 1)
    monkeypatch.setattr(generators, "open_generator", lambda path: other)
    assert main(["swap", "grid", "run", "--out", str(tmp_path / "a.png")]) == 2
    assert "family coco_gan, which has no codes" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_switches_make_variants_and_mistakes_in_them_are_named():
    from jaxgan.systems import robust_disentangling

    whole = configure.Experiment(robust_disentangling.Config())
    field = "maxinfo_alpha"
    value = not getattr(whole.model, field)
    found = swap_ablation.variants(whole, [f"{field}={value}", f"model.{field}={value},run.seed=5"])
    assert list(found) == ["as it is", f"{field}={value}", f"model.{field}={value},run.seed=5"]
    assert [getattr(one.model, field) for one in found.values()] == [not value, value, value]
    assert [one.run.seed for one in found.values()] == [0, 0, 5]
    for switch, said in ((f"{field}={not value}", "changes nothing"), ("nothing", "FIELD=VALUE"), (f"{field}x=1", "unknown")):
        with pytest.raises(ValueError, match=said):
            swap_ablation.variants(whole, [switch])
    with pytest.raises(ValueError, match="twice"):
        swap_ablation.variants(whole, [f"{field}={value}", f"model.{field}={value}"])


def test_the_table_of_an_ablation_has_a_row_for_each_variant_and_the_floor_and_ceiling():
    rest = {"protocol": {"set": "toys", "step": 9}, "probes": {"identity from pose code": {"hue": {"leak": 0.25}}}}
    one = {**rest, "table": {"model": {"PSNR": 20.0}, "mean image": {"PSNR": 19.0}, "truth": {"PSNR": "inf"}}}
    one |= {"audit": {"nats": 1.5}, "audit of drawn codes": {"nats": 0.125}, "end": {"average": 0.0625}}
    lines = swap_ablation.to_text({"as it is": one, "pv=0": one}).splitlines()
    assert [line.split("  ")[0].strip() for line in lines[3:]] == ["as it is", "pv=0", "mean image", "truth"]
    assert "probe hue" in lines[2] and "0.2500" in lines[3] and "inf" in lines[-1]
    # what a fresh estimator finds stands beside what the run itself reads
    assert all(name in lines[2] for name in ("nats", "nats drawn", "average")) and "0.1250" in lines[3] and "0.0625" in lines[3]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"split": "tset"}, "no split 'tset'"),
        ({"n": 0}, "--n is 0"),
        ({"probe_steps": -1}, "--probe-steps is -1"),
        ({"audit_pairs": "group"}, "no two clips are of one group"),
        ({"seeds": [1, 1]}, "a seed is there twice"),
    ],
)
def test_an_ablation_that_could_not_be_scored_is_refused_before_it_is_trained(words, said, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGAN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("jaxgan.train.train", lambda *a, **k: pytest.fail("trained"))
    card = configure.load_config(Path(__file__).parents[1] / "configs" / "robust_disentangling_figures32.py", "tiny")
    with pytest.raises(ValueError, match=said):
        swap_ablation.run(card, ["auxiliary=False"], tmp_path / "out", **words)
    assert not (tmp_path / "out").exists()


def test_rows_of_several_seeds_are_their_mean_and_spread():
    runs = {}
    for seed, (psnr, error) in enumerate([(20.0, 0.25), (21.0, 0.5), (25.0, 0.75)]):
        table = {"model": {"PSNR": psnr, "MSE": error, "copies": 0.5}, "truth": {"PSNR": "inf"}}
        runs[str(seed)] = {"protocol": {"set": "toys", "step": 9}, "table": table}
    lines = swap_ablation.to_text({"as it is": {"seeds": runs}, "pv=0": {"seeds": runs}}).splitlines()
    assert lines[0].endswith("seed 0 1 2")
    # by hand: (20 + 21 + 25) / 3 = 22, sqrt((4 + 1 + 9) / 2) = 2.65; 0.5, 0.25; three equal values have no spread
    assert lines[3].split()[-4:] == ["22.00+-2.65", "0.5000+-0.2500", "0.5000", "9"]
    alone = swap_ablation.to_text({"as it is": {"seeds": {"2": runs["2"]}}}).splitlines()
    assert alone[0].endswith(", run with seed 2") and alone[3].split()[-4:] == ["25.00", "0.7500", "0.5000", "9"]
    assert len({len(line) for line in lines[2:]}) == 1 and lines[-1].split()[:2] == ["truth", "inf"]


@pytest.mark.slow
def test_an_ablation_trains_scores_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAXGAN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(judges, "RENDERS_BYTES", 2**20)
    config = str(Path(__file__).parents[1] / "configs" / "robust_disentangling_figures32.py")
    words = ["swap", "ablation", config, "--tiny", "--switch", "constraint=False,bottleneck=fixed", "--workdir", str(tmp_path / "out")]
    words += ["--judges", str(tmp_path / "judges"), "--n", "12", "--judge-steps", "10", "--probe-steps", "10", "--audit-steps", "20"]
    assert main(words) == 0
    table = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert list(table) == ["as it is", "constraint=False,bottleneck=fixed"] and len(list((tmp_path / "judges").iterdir())) == 1
    assert all({"average", "gamma"} <= set(row["end"]) and row["protocol"]["step"] == 10 for row in table.values())
    assert table["as it is"]["end"]["gamma"] != table["constraint=False,bottleneck=fixed"]["end"]["gamma"] == 1  # after the warm-up
    first = capsys.readouterr()
    assert main([*words[:-10], "--seeds", "0", "3", *words[-10:], "--workdir", str(tmp_path / "seeds")]) == 0
    several = json.loads((tmp_path / "seeds" / "ablation.json").read_text())
    assert [list(row["seeds"]) for row in several.values()] == [["0", "3"]] * 2
    one, other = several["as it is"]["seeds"].values()
    assert one["table"] == table["as it is"]["table"] and other["table"] != one["table"]
    capsys.readouterr()
    monkeypatch.setattr("jaxgan.swap_scores.evaluate", None)  # nothing is scored a second time
    assert main(words) == 0 and capsys.readouterr().out == first.out


def test_without_data_the_set_is_the_one_that_the_run_learned_from(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(sets, "open_clips", lambda data, image: asked.append(data) or CLIPS)
    own = configure.Data(source="figures", ground="dark", count=64, root="there")
    swapper = swap_toy.swapper(swap_toy.Config())
    told = {"ground": "clip", "count": 32}
    for given in ({}, {"data": "figures"}, told, {"data": "sprites:folder"}):
        swap.open_set(swap.Options("out", **given), swapper, own)
    swap.open_set(swap.Options("out"), swapper)
    found = [(data.source, data.ground, data.count, data.split) for data in asked]
    new = configure.Data().count
    assert found == [
        *[("figures", "dark", 64, "test")] * 2,
        ("figures", "clip", 32, "test"),
        ("sprites:folder", "plain", new, "test"),
        ("figures", "plain", new, "test"),
    ]
    card = configure.load_config(Path(__file__).parents[1] / "configs" / "robust_disentangling_figures32.py")
    configure.write(dataclasses.replace(card, data=own), tmp_path / "config.json")
    assert generators.own_data(tmp_path) == own and generators.own_data(tmp_path / "elsewhere") is None
