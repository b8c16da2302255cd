"""Training against vLLM's own server on loopback, with the calls that docs/engines.md names."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path

import pytest
from tiny import finished

from spark_rl.cli import main
from spark_rl.runs.forests import load_forest
from spark_rl.runs.run import Run

pytest.importorskip("vllm", reason="vLLM needs an environment of its own: make vllm && make test-vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

DOCUMENT = Path(__file__).parents[3] / "docs" / "engines.md"


def documented(model: Path, port: int) -> tuple[dict[str, str], list[str]]:
    """Environment and options of the command in docs/engines.md that starts a server."""
    text = DOCUMENT.read_text()
    command = re.search(r"^(VLLM_SERVER_DEV_MODE=1 .*?)\n\n?```", text, re.MULTILINE | re.DOTALL)
    assert command, "the document shows how to start a server"
    words = command[1].replace("\\\n", " ").split()
    start = words.index("python")
    variables = dict(word.split("=", 1) for word in words[:start])
    options = [str(model) if word == "MODEL" else str(port) if word == "8000" else word for word in words[start + 1 :]]
    return variables, options


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """A server with the cold-started model of 0.1 M parameters."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables, options = documented(finished()[0].checkpoints / "cold-start", port)
    sizes = ["--dtype", "float32", "--max-model-len", "1024", "--kv-cache-memory-bytes", str(2**27), "--enable-lora"]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *options, *sizes], env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{port}/v1"
        for _ in range(600):
            assert process.poll() is None, log.read_text()[-2000:]
            try:
                with urllib.request.urlopen(f"{url}/models"):
                    break
            except urllib.error.URLError:
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("options", [(), ("--weights.lora-rank", "8")])
def test_a_server_is_trained_with(
    address: str, options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cold = finished()[0].checkpoints / "cold-start"
    words = ["--model", str(cold), "--cold-start.demonstrations", "0", "--iterations", "2", "--evaluation.levels", "L0"]
    forests = []
    for name in ("first", "again"):
        out = tmp_path / name
        engine = ["--engine", "openai", "--engine.base-url", address]
        assert main(["train", "tiny:recipe", *words, *options, *engine, "--out", str(out), "--quiet"]) == 0
        capsys.readouterr()
        rows = Run.open(out, foreign=lambda _: True).metrics()
        assert [row["iteration"] for row in rows] == [1, 2]
        assert max(row["update_rollout_gap_max"] for row in rows) < 1e-4
        assert all(row["reused"] > row["prefilled"] for row in rows), "the prefix cache is used, and told"
        forests.append([load_forest(out, iteration).trees for iteration in (1, 2)])
    assert forests[0] == forests[1], "seeds decide, whatever else is in flight"
