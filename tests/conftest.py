"""Every test session runs on eight virtual CPU devices, with strict dtype promotion, and with warnings as errors (pyproject.toml)."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Set before jax is imported, and in the environment, so that the processes which tests start inherit them.
flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith("--xla_force_host_platform_device_count")]
os.environ["XLA_FLAGS"] = " ".join([*flags, "--xla_force_host_platform_device_count=8"])
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
# A compile of 7.5 s is read back in 0.2 s.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import jax  # noqa: E402
import pytest  # noqa: E402


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuses a session in which a plugin imported jax before the settings above were made."""
    if jax.config.jax_numpy_dtype_promotion != "strict":
        raise pytest.UsageError("jax was imported before tests/conftest.py: its settings (8 devices, strict promotion) are not in force")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the checkout, or $JAXGAN_SHARED: reference values and photographs that this repository does not hold."""
    folder = Path(os.environ.get("JAXGAN_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: reference values and photographs are kept outside this repository (set JAXGAN_SHARED)")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The small reference values kept in tests/golden."""
    folder = Path(__file__).parent / "golden"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: no reference values are kept in this checkout")
    return folder
