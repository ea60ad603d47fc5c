"""What importing costs, and in which direction modules may import each other."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in (ROOT / "jaxgan").rglob("*.py"))
LOW = tuple(m for m in MODULES if m.startswith(("jaxgan.nets", "jaxgan.metrics", "jaxgan.losses", "jaxgan.coords")))
HEAVY = ("tensorflow", "torch", "keras", "tensorboardX")


def run(code: str, **environment: str) -> str:
    """Standard output of `code` in a fresh interpreter that is told to use a platform which does not exist: touching a device fails."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "no_such_platform", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_importing_jaxgan_is_cheap_and_touches_nothing():
    code = (
        "import sys, time\n"
        "before = dict(sys.modules)\n"
        "import jaxgan\n"
        "print(time.process_time())\n"
        f"assert not [m for m in {HEAVY} if m in sys.modules]\n"
        "import logging; assert not logging.getLogger().handlers\n"
        "print(sys.argv)"
    )
    seconds, argv = run(code).splitlines()
    assert float(seconds) <= 2.5
    assert argv == "['-c']"


def test_the_public_names_exist_and_no_module_touches_a_device_or_a_heavy_framework():
    # One interpreter for all modules: what any of them drags in is seen here.
    code = (
        "import importlib, sys\n"
        "import jaxgan\n"
        "for name in jaxgan.__all__: getattr(jaxgan, name)\n"
        f"for name in {MODULES}:\n"
        "    if name != 'jaxgan.__main__': importlib.import_module(name)\n"
        f"heavy = [m for m in {HEAVY} if m in sys.modules]\n"
        "assert not heavy, heavy\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, xla_bridge._backends\n"
    )
    run(code)


def test_help_and_mistakes_answer_without_jax():
    code = (
        "import sys\n"
        "from jaxgan.__main__ import main\n"
        "assert main(['--help']) == 0 and main(['trian']) == 2 and main(['train', '--help']) == 0\n"
        "assert main(['swap', 'ablation', '--help']) == 0 and main(['swap', 'ablation', 'a.py', '--swich', 'b']) == 2\n"
        "assert 'jax' not in sys.modules, 'help imports jax'\n"
    )
    assert "usage: jaxgan" in run(code)


@pytest.mark.parametrize("name", LOW)
def test_a_piece_imports_alone_without_the_rest_of_the_house(name):
    code = f"import {name}, sys; print(*[m for m in sys.modules if m.startswith('jaxgan')])"
    loaded = run(code).split()
    above = [m for m in loaded if m.startswith(("jaxgan.systems", "jaxgan.train", "jaxgan.configure", "jaxgan.__main__", "jaxgan.data"))]
    assert name in loaded and not above


def imports(path: Path) -> set[str]:
    """Names of the jaxgan modules that a file imports, at the top or inside a function."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("jaxgan")}


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("nets", ("systems", "train", "configure", "data", "checkpoint", "report", "__main__")),
        ("losses.py", ("systems", "train", "configure", "data", "checkpoint", "report", "__main__")),
        ("coords.py", ("systems", "train", "configure", "data", "checkpoint", "report", "__main__")),
        ("metrics", ("systems", "train", "configure", "checkpoint", "report", "__main__")),
        ("systems", ("train", "__main__")),
        ("train.py", ("systems", "nets", "losses", "coords", "__main__")),
        ("configure.py", ("train", "nets", "data", "__main__")),
    ],
)
def test_imports_run_one_way(folder, forbidden):
    place = ROOT / "jaxgan" / folder
    files = [place] if place.suffix else sorted(place.rglob("*.py"))
    assert files
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if name.split(".")[1:2] and name.split(".")[1] in forbidden
    }
    assert not wrong
