"""What all tests share: one thread, no network, and the way to data that is not part of the repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from spark_rl.environments.scienceworld import ScienceWorld
from spark_rl.errors import UsageError

# Before torch and transformers are imported anywhere: with several workers, threads that spin at barriers cost far more
# than they bring; and no test may depend on a network.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ[_name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# Same examples at every run, and no verdict that depends on how busy the machine is.
settings.register_profile("spark-rl", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spark-rl")

REPOSITORY = Path(__file__).resolve().parents[1]
# What benchmarks share can be tested.
sys.path.append(str(REPOSITORY / "benchmarks"))
TESTDATA = Path(os.environ.get("SPARK_RL_TESTDATA") or REPOSITORY / "../shared/data").resolve()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what reads the shared data, so that `-m "not shared"` leaves it out, and likewise what starts Java."""
    for item in items:
        if "scienceworld" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.java)
        if "testdata" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)


@pytest.fixture(scope="session")
def testdata() -> Path:
    """The folder of shared data (`alfworld/`, `vectors/`, `webshop/`)."""
    if not TESTDATA.is_dir():
        pytest.skip(f"no shared test data at {TESTDATA}: set SPARK_RL_TESTDATA to its folder")
    return TESTDATA


@pytest.fixture(scope="session")
def scienceworld() -> ScienceWorld:
    """The world, where its engine and Java are installed. One Java process serves all tests of a worker."""
    pytest.importorskip("scienceworld", reason="ScienceWorld's engine is the extra scienceworld")
    world = ScienceWorld()
    try:
        world.about()
    except UsageError as error:
        pytest.skip(str(error))
    return world


@pytest.fixture(scope="session")
def alfworld_games(testdata: Path) -> Path:
    """What `$ALFWORLD_DATA` would name: a folder that holds `json_2.1.1` with the 274 validation games."""
    return unpacked(testdata / "alfworld" / "games-valid.tar.zst")


def unpacked(archive: Path) -> Path:
    """The archive's content, unpacked once a machine.

    The folder is named after the archive's content and appears by one rename, so that parallel workers see all of it
    or nothing; a worker that comes second throws its own copy away.
    """
    if not archive.is_file():
        pytest.skip(f"{archive} is missing from the shared test data")
    if shutil.which("zstd") is None:
        pytest.skip(f"the program zstd is needed to unpack {archive.name}: install it with the system's package manager")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spark-rl" / "tests"
    target = cache / hashlib.sha256(archive.read_bytes()).hexdigest()[:16]
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        content = Path(scratch) / "content"
        content.mkdir()
        subprocess.run(["tar", "--zstd", "-xf", archive, "-C", content], check=True, stdin=subprocess.DEVNULL)
        try:
            content.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    return target
