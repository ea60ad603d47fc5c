"""The command line: what it refuses (one line, exit status 2, nothing written), and the run cards in configs/."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import pytest

from jaxgan import configure
from jaxgan.__main__ import COMMANDS, Parser, main

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
CARDS = sorted(path.stem for path in CONFIGS.glob("*.py"))
SCENES = str(CONFIGS / "coco_gan_scenes.py")


def refused(capsys, *argv: str) -> str:
    """The line with which the command line refuses `argv`."""
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and captured.err.startswith("jaxgan") and "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("trian", "jaxgan: unknown command 'trian'; nearest: train"),
        ("data improt", "jaxgan data: unknown command 'improt'; nearest: import"),
        ("weights verfy", "jaxgan weights: unknown command 'verfy'; nearest: verify"),
        ("train", "jaxgan train: the following arguments are required: config"),
        ("train {scenes}", "jaxgan train: --workdir is missing"),
        ("train {configs}/coco_gan_scene.py --workdir {room}/run", "does not exist; nearest: coco_gan_scenes.py"),
        ("train {configs} --workdir {room}/run", "does not exist"),
        ("train {scenes} --workdri {room}/run", "unknown option --workdri; nearest: --workdir"),
        ("train {scenes} --workdir {room}/run --model.g_widht 8", "unknown option --model.g_widht; nearest: --model.g_width"),
        ("train {scenes} --workdir {room}/run --kimg 8", "unknown option --kimg; nearest: --run.kimg"),
        ("train {scenes} --workdir {room}/run --model.g_width wide", "--model.g_width"),
        ("train {scenes} --workdir {room}/run --model.micro 5 5", "micro patch of 5 px must divide"),
        ("train {scenes} --workdir {room}/run --model.sampling discreet", "'discreet'"),
        ("train {scenes} --tiny --workdir {room}/run --run.batch 12", "12"),
        ("train {scenes} --tiny --workdir {room}/run --run.mesh 3 1", "3"),
        ("train {scenes} --tiny --workdir {room}/run --data.source {room}/nothing", "nothing"),
        ("sample {room}/nothing --out {room}/x.png", "nothing"),
        ("sample {room} --out {room}/x.png", "is neither a workdir"),
        ("data import {room}/nothing {room}/out --size 32", "nothing"),
        ("data import {room} {room}/out --size 0", "--size is 0"),
        ("data show scenes --out {room}/x.png --sise 32", "unknown option --sise; nearest: --size"),
        ("doctor --topolgy v5e:4x4", "unknown option --topolgy; nearest: --topology"),
        ("doctor --topology v5e:4x4", "a config file is missing"),
    ],
)
def test_what_is_wrong_is_named_in_one_line_and_nothing_is_written(argv, said, capsys, tmp_path):
    words = [word.format(scenes=SCENES, configs=CONFIGS, room=tmp_path) for word in argv.split()]
    assert said in refused(capsys, *words)
    assert not list(tmp_path.iterdir())


def test_a_traceback_is_shown_on_request(capsys, monkeypatch):
    monkeypatch.setenv("JAXGAN_TRACEBACK", "1")
    assert main(["train", "nothing.py"]) == 2
    assert "FileNotFoundError" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_says_what_a_command_takes(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"usage: jaxgan {command}" in capsys.readouterr().out


def test_words_of_a_field_do_not_reach_the_command():
    parser = Parser("jaxgan test")
    parser.add_argument("config")
    parser.add_argument("--workdir")
    own, fields = parser.parse_with_fields("c.py --run.mesh 4 -1 --workdir w --model.gp_weight=1e-3 --model.full 3 4".split())
    assert (own.config, own.workdir) == ("c.py", "w")
    assert fields == "--run.mesh 4 -1 --model.gp_weight=1e-3 --model.full 3 4".split()


@pytest.mark.slow
def test_the_command_trains_resumes_and_leaves_a_foreign_workdir_alone(capsys, tmp_path):
    room = ["--quiet", "--data.root", f"{tmp_path}/data", "--workdir", f"{tmp_path}/run"]
    argv = ["train", SCENES, "--tiny", *room]
    assert main([*argv, "--stop-after-steps", "1"]) == 0
    assert configure.read(tmp_path / "run" / "config.json").run.batch == 8
    before = {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()}
    capsys.readouterr()
    assert "model.g_width is 4 there and 8 here" in refused(capsys, *argv, "--model.g_width", "8")
    assert "12" in refused(capsys, *argv, "--run.batch", "12")  # 8 devices
    assert {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("*")) if path.is_file()} == before
    assert main(argv) == 0
    assert (tmp_path / "run" / "checkpoints" / "10").is_dir()


# The table of configurations in the authors' repository: source, full, macro, micro, batch, and what differs from
# latent 128, penalty 10, spatial weight 100, content weight 0, widths 64, heads 128, no extra blocks, rates 1e-4 / 4e-4 / 1e-4.
PAPER = {
    "coco_gan_celeba64_n2m2s32": ("celeb_a", (64, 64), 32, 16, 64, {}),
    "coco_gan_celeba128_n2m2s64": ("celeb_a", (128, 128), 64, 32, 128, {}),
    "coco_gan_celeba128_n4m4s64": ("celeb_a", (128, 128), 64, 16, 128, {}),
    "coco_gan_celeba128_n8m8s64": ("celeb_a", (128, 128), 64, 8, 128, {"g_extra_blocks": 1}),
    "coco_gan_celeba128_n16m16s64": ("celeb_a", (128, 128), 64, 4, 64, {"g_extra_blocks": 3}),
    "coco_gan_celeba128_patch_guided": ("celeb_a", (128, 128), 64, 32, 128, {"content_weight": 100.0}),
    "coco_gan_lsun64_n2m2s32": ("lsun", (64, 64), 32, 16, 128, {}),
    "coco_gan_lsun256_n2m2s128": ("lsun", (256, 256), 128, 64, 128, {}),
    "coco_gan_lsun256_extrapolation": ("lsun", (256, 256), 128, 64, 128, {"spatial_weight": 10_000.0, "extrapolate": 1}),
    "coco_gan_celebahq1024_n2m2s512": ("celebahq", (1024, 1024), 512, 256, 20, {}),
    "coco_gan_mp3d_n2m2s128": ("matterport3d", (256, 768), 128, 64, 128, {"coordinates": "cylindrical"}),
}
COMMON = {
    "channels": 3,
    "latent": 128,
    "g_width": 64,
    "d_width": 64,
    "aux_width": 128,
    "g_extra_blocks": 0,
    "d_extra_blocks": 0,
    "coordinates": "euclidean",
    "sampling": "discrete",
    "cbn_norm": "var",
    "gp_mode": "reference",
    "gp_weight": 10.0,
    "spatial_weight": 100.0,
    "content_weight": 0.0,
    "extrapolate": 0,
    "g_lr": 1e-4,
    "d_lr": 4e-4,
    "q_lr": 1e-4,
    "ema": 0.0,
}
# Parameters at width 64, computed from the shapes: G, D (trunk and projection).
PARAMETERS = {
    "coco_gan_celeba64_n2m2s32": (11_225_091, 9_449_281),
    "coco_gan_celeba128_n2m2s64": (11_392_515, 9_842_881),
    "coco_gan_celeba128_n4m4s64": (11_225_091, 9_842_881),
    "coco_gan_celeba128_n8m8s64": (11_225_091, 9_842_881),
    "coco_gan_celeba128_n16m16s64": (11_392_515, 9_842_881),
    "coco_gan_lsun256_n2m2s128": (11_504_067, 9_920_897),
    "coco_gan_mp3d_n2m2s128": (11_514_179, 9_921_409),
    "coco_gan_celebahq1024_n2m2s512": (11_727_171, 10_076_929),
}


@pytest.mark.parametrize("name", sorted(PAPER))
def test_a_run_card_has_the_numbers_of_the_paper(name):
    source, full, macro, micro, batch, other = PAPER[name]
    experiment = configure.load_config(CONFIGS / f"{name}.py")
    model = dataclasses.asdict(experiment.model)
    assert source in experiment.data.source
    assert (model["full"], model["macro"], model["micro"], experiment.run.batch) == (full, (macro, macro), (micro, micro), batch)
    assert {key: model[key] for key in COMMON} == {**COMMON, **other}


def sizes(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_run_card_builds_networks_of_the_papers_size(name):
    params = jax.eval_shape(configure.load_config(CONFIGS / f"{name}.py").model.system().init, jax.random.key(0)).params
    assert (sizes(params["G"]), sizes(params["D"])) == PARAMETERS[name]


@pytest.mark.parametrize("name", CARDS)
def test_tiny_is_tiny_and_has_the_parts_of_the_real_run(name):
    path = CONFIGS / f"{name}.py"
    real, tiny = configure.load_config(path), configure.load_config(path, "tiny")
    if name.startswith("layer_inversion"):  # the real one is of a trained generator, which is not here
        real = dataclasses.replace(real, model=dataclasses.replace(real.model, generator=tiny.model.generator))
    states = {e: jax.eval_shape(e.model.system().init, jax.random.key(0)) for e in (real, tiny)}
    assert sizes(states[tiny].params) < 100_000
    assert tiny.run.kimg * 1000 / tiny.run.batch <= 20 and tiny.run.batch <= 8
    drawn = tiny.data.source in ("scenes", "figures") and tiny.data.count <= 256
    assert drawn if tiny.model.system().records else tiny.data == configure.Data()
    for part in ("params", "opt", "model", "ema"):
        assert set(getattr(states[tiny], part)) == set(getattr(states[real], part))


@pytest.mark.parametrize("name", [name for name in CARDS if name.startswith("coco_gan")])
def test_a_tiny_coco_gan_differs_from_the_real_one_in_sizes_alone(name):
    path = CONFIGS / f"{name}.py"
    real, tiny = configure.load_config(path), configure.load_config(path, "tiny")
    assert tiny.data.periodic == (real.model.coordinates == "cylindrical")
    # The same number of micro patches in a macro patch and in an image, and the same choices; only sizes differ.
    geometries = [experiment.model.geometry() for experiment in (real, tiny)]
    assert geometries[0].per_macro == geometries[1].per_macro and geometries[0].per_full == geometries[1].per_full
    changed = {field for field, _, _ in configure.differences(dataclasses.replace(real, data=tiny.data, run=tiny.run), tiny)}
    assert changed <= {f"model.{size}" for size in ("full", "macro", "micro", "latent", "g_width", "d_width", "aux_width")}


@pytest.mark.parametrize("name", CARDS)
def test_a_run_card_says_how_it_is_run_and_what_was_measured(name):
    text = (CONFIGS / f"{name}.py").read_text()
    assert f"jaxgan train configs/{name}.py" in text
    assert all(f"\n{word}:" in text for word in ("Reproduces", "Command", "Hardware", "Measured"))
