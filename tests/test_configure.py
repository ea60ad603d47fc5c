"""Experiments from files, command lines and JSON: exact where they are right, refused with the field's name where they are not."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Literal

import pytest
from hypothesis import given, settings, strategies

from jaxgan import configure
from jaxgan.configure import Data, Experiment, Run


@dataclasses.dataclass(frozen=True)
class Adam:
    rate: float = 1e-4
    betas: tuple[float, float] = (0.0, 0.999)


@dataclasses.dataclass(frozen=True)
class Config:
    """A model with a field of each kind that configurations use."""

    width: int = 64
    full: tuple[int, int] = (64, 64)
    blocks: tuple[int, ...] = (8, 4, 2)
    sampling: Literal["discrete", "continuous"] = "discrete"
    level: Literal[1, 2] = 1
    shared: bool = True
    seed: int | None = None
    adam: Adam = Adam()
    name: str = ""

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"width {self.width} must be positive")


@pytest.fixture(autouse=True, scope="module")
def registered():
    """This file as the system `kinds`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, "__module__", "jaxgan.systems.kinds")
        patch.setitem(sys.modules, "jaxgan.systems.kinds", sys.modules[__name__])
        yield


DEFAULT = Experiment(Config())
CHANGED = Experiment(
    Config(3, (4, 6), (1,), "continuous", 2, False, 7, Adam(1 / 3, (0.1, 1e-300)), "näme"),
    Data("folder", periodic=True),
    Run(kimg=0.1, mesh=(4, 2)),
)


@pytest.mark.parametrize("experiment", [DEFAULT, CHANGED])
def test_json_holds_the_experiment_exactly(experiment, tmp_path):
    tree = configure.to_json(experiment)
    assert configure.from_json(json.loads(json.dumps(tree))) == experiment
    assert (tree["system"], list(tree)) == ("kinds", ["jaxgan", "system", "model", "data", "run"])
    configure.write(experiment, tmp_path / "new" / "config.json")
    assert configure.read(tmp_path / "new" / "config.json") == experiment
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["config.json"]


whole, real = strategies.integers(-(2**63), 2**63), strategies.floats(allow_nan=False, allow_infinity=False)
models = strategies.builds(
    Config,
    width=strategies.integers(1),
    full=strategies.tuples(whole, whole),
    blocks=strategies.lists(whole).map(tuple),
    sampling=strategies.sampled_from(["discrete", "continuous"]),
    level=strategies.sampled_from([1, 2]),
    shared=strategies.booleans(),
    seed=strategies.none() | whole,
    adam=strategies.builds(Adam, rate=real, betas=strategies.tuples(real, real)),
    name=strategies.text(),
)


@given(models, strategies.builds(Run, kimg=real, seed=whole, start=strategies.text()))
@settings(max_examples=50, deadline=None)
def test_json_holds_any_experiment_exactly(model, run):
    experiment = Experiment(model, run=run)
    again = configure.from_json(json.loads(json.dumps(configure.to_json(experiment), allow_nan=False)))
    assert again == experiment and configure.differences(again, experiment) == []


def test_a_field_that_an_older_file_lacks_takes_its_default():
    tree = configure.to_json(CHANGED)
    del tree["run"]["keep"], tree["model"]["adam"]["rate"]
    read = configure.from_json(tree)
    assert (read.run.keep, read.model.adam) == (Run().keep, Adam(betas=(0.1, 1e-300)))


@pytest.mark.parametrize(
    ("place", "key", "value", "said"),
    [
        ("model", "widht", 3, "model.widht; nearest: model.width"),
        ("run", "kimgs", 3, "run.kimgs; nearest: run.kimg"),
        ("", "rnu", {}, "'rnu'; nearest: run"),
        ("model", "width", 3.0, "model.width is 3.0; it must be a whole number"),
        ("model", "width", True, "model.width is True; it must be a whole number"),
        ("model", "width", -1, "width -1 must be positive"),
        ("model", "shared", 1, "model.shared is 1; it must be true or false"),
        ("model", "full", [1, 2, 3], "model.full is [1, 2, 3]"),
        ("model", "full", ["1", 2], "model.full[0] is '1'"),
        ("model", "sampling", "discreet", "'discrete', 'continuous'; nearest: discrete"),
        ("model", "level", True, "model.level is True; it must be one of 1, 2"),
        ("model", "seed", "x", "model.seed is 'x'"),
        ("model", "adam", {"rat": 1.0}, "model.adam.rat; nearest: model.adam.rate"),
        ("model", "adam", 3, "model.adam is 3; it must hold the fields of"),
        ("run", "kimg", float("nan"), "run.kimg is nan; it must be a finite number"),
        ("", "system", "kind", "system 'kind' is not a module of jaxgan.systems"),
        ("", "system", "../secret", "system '../secret' is not a module of jaxgan.systems"),
        ("", "system", "os", "system 'os' is not a module of jaxgan.systems"),
        ("", "run", None, "run is None"),
    ],
)
def test_json_that_is_not_an_experiment_is_refused_by_name(place, key, value, said):
    tree = configure.to_json(DEFAULT)
    (tree[place] if place else tree)[key] = value
    with pytest.raises(ValueError) as error:
        configure.from_json(tree)
    assert said in str(error.value)


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(FileNotFoundError, match=r"config.json does not exist.*workdir"):
        configure.read(path)
    path.write_text('{"system": "kinds", ')
    with pytest.raises(ValueError, match="config.json: "):
        configure.read(path)


def test_only_a_systems_own_config_can_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"only jaxgan.systems.<name>.Config can be written"):
        configure.write(Experiment(Adam()), tmp_path / "config.json")
    with pytest.raises(ValueError, match=r"run.kimg is 'long'; it must be a finite number"):
        configure.write(Experiment(Config(), run=Run(kimg="long")), tmp_path / "config.json")
    assert not list(tmp_path.iterdir())


def test_every_kind_of_field_is_set_from_the_command_line():
    argv = "--model.width 3 --model.full 4 6 --model.blocks 1 --model.sampling continuous --model.level 2 --model.shared False"
    argv += " --model.seed 7 --model.adam.betas 0.1 1e-300 --run.mesh 4 2 --run.kimg=0.1 --data.periodic True --data.source folder"
    expected = dataclasses.replace(CHANGED.model, adam=Adam(1e-4, (0.1, 1e-300)), name="")
    assert configure.override(DEFAULT, argv.split()) == dataclasses.replace(CHANGED, model=expected)
    assert configure.override(CHANGED, []) == CHANGED
    assert configure.override(CHANGED, ["--model.seed", "None"]).model.seed is None


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--model.widht 3", "unknown option --model.widht; nearest: --model.width"),
        ("--kimg 3", "unknown option --kimg; nearest: --run.kimg"),
        ("--model.adam.rats 3", "nearest: --model.adam.rate"),
        ("--model.width x", "--model.width"),
        ("--model.sampling discreet", "'discreet' for argument '--model.sampling'"),
        ("--model.full 3", "--model.full"),
        ("--model.shared maybe", "--model.shared"),
        ("--run.kimg inf", "run.kimg is inf"),
        ("--model.width 0", "width 0 must be positive"),
        ("stray", "stray"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_one_line_that_names_it(argv, said):
    with pytest.raises(ValueError) as error:
        configure.override(DEFAULT, argv.split())
    assert said in str(error.value) and "\n" not in str(error.value)


def test_differences_name_the_fields():
    assert configure.differences(DEFAULT, DEFAULT) == []
    other = dataclasses.replace(DEFAULT, model=Config(adam=Adam(rate=2e-4)), run=Run(seed=1))
    assert configure.differences(DEFAULT, other) == [("model.adam.rate", 1e-4, 2e-4), ("run.seed", 0, 1)]
    assert [name for name, _, _ in configure.differences(DEFAULT, Experiment(Adam()))] == ["system"]


CONFIG_FILE = """
from jaxgan.configure import Experiment
from jaxgan.systems.kinds import Config

def config():
    return Experiment(Config(width=5))

def tinny():
    return Experiment(Config())
"""


def test_a_config_file_is_run_and_overridden(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CONFIG_FILE)
    assert configure.load_config(path).model.width == 5
    assert configure.parse(path, ["--model.adam.rate", "2"]).model == Config(width=5, adam=Adam(2.0))


@pytest.mark.parametrize(
    ("text", "variant", "kind", "said"),
    [
        (None, "config", FileNotFoundError, "does not exist; nearest: "),
        (CONFIG_FILE, "tiny", ValueError, "others.py has no function tiny(); nearest: tinny"),
        ("import no_such_module_anywhere", "config", ValueError, "others.py does not run: ModuleNotFoundError"),
        ("def config(:", "config", ValueError, "does not run: SyntaxError"),
        ("def config():\n    return 3", "config", ValueError, "others.py returns int, not a jaxgan.configure.Experiment"),
        ("def config():\n    return 1 / 0", "config", ValueError, "config() of config file"),
        (CONFIG_FILE.replace("width=5", "width='wide'"), "config", ValueError, "fails: TypeError"),
        (CONFIG_FILE.replace("width=5", "full=(64, '64')"), "config", ValueError, "model.full[1] is '64'; it must be a whole number"),
    ],
)
def test_a_config_file_that_is_none_is_refused(tmp_path, text, variant, kind, said):
    (tmp_path / "other.py").write_text("")
    path = tmp_path / "others.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(kind) as error:
        configure.load_config(path, variant)
    assert said in str(error.value)
