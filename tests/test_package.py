"""What a user gets: the wheel, installed in an empty environment, imports without extras and builds every recipe."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow

# Run by the new environment's interpreter, away from the repository: it sees the wheel and the core dependencies.
IMPORT_ALL = """
import importlib, pkgutil, sys
gone = "trl datasets accelerate peft textworld alfworld fast_downward jericho scienceworld py4j rapidfuzz"
for extra in gone.split():
    sys.modules[extra] = None
import spark_rl
assert {site!r} in spark_rl.__file__, spark_rl.__file__
for name in spark_rl.__all__:
    getattr(spark_rl, name)
for module in pkgutil.walk_packages(spark_rl.__path__, "spark_rl."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""

BUILD_RECIPES = """
import dataclasses, importlib
from spark_rl.recipes import RECIPES
assert RECIPES
for name, place in RECIPES.items():
    module, function = place.split(":")
    recipe = getattr(importlib.import_module(module), function)()
    assert dataclasses.is_dataclass(recipe), name
print(*RECIPES)
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, REPOSITORY, cwd=out)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel only; dependencies are found, but not copied, from this one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    here = [entry for entry in sys.path if entry.endswith("site-packages")]
    # Behind the new environment's own folder, and as plain paths: this environment's editable install is not followed.
    (site / "dependencies.pth").write_text("\n".join(here), encoding="utf-8")
    return python


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "spark_rl/py.typed" in names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"spark_rl"}
    sources = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "spark_rl").rglob("*.py")}
    sources |= {f"spark_rl/report/page/page.{kind}" for kind in ("html", "css", "js")}
    assert sources <= set(names)
    helper = {
        f"spark_rl/environments/scienceworld/java/sparkrl/{name}" for name in ("Host.class", "Host.java", "Copier.class")
    }
    assert helper <= set(names)
    assert "spark_rl/environments/webshop/colors.json" in names


def test_the_source_distribution_holds_no_results_of_studies(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, REPOSITORY, cwd=tmp_path)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {"pyproject.toml", "spark_rl/cli.py", "docs/results/tables_cpu.md"} <= set(names)
    results = [
        name for name in names if name.startswith(("results/", "docs/results/")) and name.endswith((".json", ".jsonl"))
    ]
    assert not results


def test_every_module_imports_without_extras(python: Path) -> None:
    site = str(python.parents[1])
    run(python, "-c", IMPORT_ALL.format(site=site), cwd=python.parents[1])


def test_every_recipe_builds(python: Path) -> None:
    run(python, "-c", BUILD_RECIPES, cwd=python.parents[1])


def test_the_command_line_starts(python: Path) -> None:
    assert "train" in run(python.parent / "spark-rl", "--help", cwd=python.parents[1])
