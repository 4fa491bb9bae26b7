"""Test settings: 64-bit types at hand, strict promotion of ranks, and compiled programs kept between tests."""

import importlib.util
import itertools
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent

# XLA's older emitters write slower code for a CPU, and write it in half the time. JAXMIN_TEST_EMITTERS=default tests
# with those that users have.
_OLDER_EMITTERS = "--xla_cpu_use_fusion_emitters=false"


def _is_known(flag):
    """Whether this XLA knows a flag; one that it does not know ends the process."""
    probe = [sys.executable, "-c", "import jax; jax.devices('cpu')"]
    return subprocess.run(probe, env=os.environ | {"XLA_FLAGS": flag}, capture_output=True, check=False).returncode == 0


# The workers of a parallel run inherit the flags.
if os.environ.get("JAXMIN_TEST_EMITTERS") != "default" and "PYTEST_XDIST_WORKER" not in os.environ:
    flags = os.environ.get("XLA_FLAGS", "")
    if _OLDER_EMITTERS not in flags and _is_known(_OLDER_EMITTERS):
        os.environ["XLA_FLAGS"] = f"{flags} {_OLDER_EMITTERS}".strip()

import jax  # noqa: E402  # reads XLA_FLAGS

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
cache = os.environ.get("JAXMIN_TEST_CACHE", str(ROOT / ".jax_cache"))
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# The worked examples of the pages are files that a page imports as if they lay beside it.
sys.path.append(str(ROOT / "docs" / "examples"))

# Built by Sphinx, or run by tests/test_docs.py.
collect_ignore = ["docs/conf.py", "docs/_build", "docs/_gallery", "docs/gallery"]
# Releases of some libraries want a newer jax than the lowest that jaxmin supports.
for library, needed_by in {
    "flax": ["tests/test_ecosystem.py", "docs/ecosystem.md"],
    "scipy": ["docs/from_scipy.md"],
    "jaxopt": ["docs/from_jaxopt.md"],
    "optax": ["docs/from_jaxopt.md", "docs/from_optax.md"],
    "optimistix": ["docs/from_optimistix.md"],
}.items():
    if importlib.util.find_spec(library) is None:
        collect_ignore += needed_by

_tests = itertools.count(1)


def pytest_runtest_teardown(item, nextitem):
    """Let go of compiled programs now and then: Linux grants a process 65,530 mappings, and a solve takes up to 200."""
    if next(_tests) % 100 == 0 or (nextitem is not None and nextitem.path != item.path):
        jax.clear_caches()
