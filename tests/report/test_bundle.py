"""The built page is what its sources build to, and its own tests pass."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
WEB, PAGE = REPOSITORY / "web", REPOSITORY / "spark_rl" / "report" / "page"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on this machine: Node builds the page"),
    pytest.mark.skipif(not (WEB / "node_modules").is_dir(), reason="what builds the page is not installed: make page-tools"),
]


def npm(folder: Path, *words: str) -> None:
    done = subprocess.run(["npm", "--prefix", folder, "run", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_bundle_is_what_the_sources_build_to(tmp_path):
    copy = tmp_path / "web"
    shutil.copytree(WEB, copy, ignore=shutil.ignore_patterns("node_modules"))
    (copy / "node_modules").symlink_to(WEB / "node_modules")
    npm(copy, "build")
    built = {path.name: path.read_bytes() for path in (tmp_path / "spark_rl" / "report" / "page").iterdir()}
    assert built == {path.name: path.read_bytes() for path in PAGE.iterdir()}


def test_its_types_and_its_own_tests_hold():
    npm(WEB, "check")
    npm(WEB, "test")


def test_the_lock_file_names_no_registry():
    assert "resolved" not in (WEB / "package-lock.json").read_text()
