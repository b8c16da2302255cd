"""The live page's server: it answers what the files say now, tells who watches what changed, and only reads."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from trees import draw

from spark_rl.cli import main
from spark_rl.config.recipe import Keep, Recipe
from spark_rl.environments.household import Household
from spark_rl.errors import UsageError
from spark_rl.report.payload import metrics_payload
from spark_rl.runs.run import Run
from spark_rl.types import Forest

pytest.importorskip("starlette", reason='the live page needs the extra "server"')

import httpx
from starlette.testclient import TestClient

from spark_rl.server.app import _changes, application
from spark_rl.server.shelf import Shelf

RECIPE = Recipe("drawn", Household(), iterations=5, keep=Keep(forests=2))


def begin(directory: Path, iterations: int = 2) -> Run:
    run = Run.create(directory, RECIPE)
    for iteration in range(1, iterations + 1):
        advance(run, iteration)
    return run


def advance(run: Run, iteration: int) -> None:
    """What the trainer writes in an iteration."""
    run.save_forest(Forest([draw([-1, 0, 0], {1: 1.0, 2: 0.0})], iteration=iteration))
    run.log({"iteration": float(iteration), "success": 0.5})


@pytest.fixture
def run(tmp_path) -> Run:
    return begin(tmp_path / "runs" / "one")


@pytest.fixture
def client(run) -> Iterator[TestClient]:
    with TestClient(application(Shelf([run.directory.parent]), ["testserver"])) as client:
        yield client


def test_it_answers_what_the_files_say_now(client, run):
    [before] = client.get("/api/runs").json()
    assert (before["name"], before["state"]) == ("one", "2 of 5 iterations")
    assert [entry["iteration"] for entry in before["forests"]] == [1, 2]
    advance(run, 3)
    after = client.get("/api/runs/0").json()
    assert after["metrics"]["iteration"] == [1, 2, 3]
    assert [entry["iteration"] for entry in after["forests"]] == [2, 3]
    forest = client.get("/api/runs/0/forests/3").json()
    assert len(forest["trees"][0]["nodes"]["parent"]) == 3
    assert forest["trees"][0]["nodes"]["advantage"][1] > 0


def test_the_page_says_what_metrics_mean(client):
    [content] = re.findall(r'<script type="application/json" id="metrics">(.*?)</script>', client.get("/").text)
    assert json.loads(content) == metrics_payload()


def test_a_run_that_appears_is_taken_in_and_keys_stay(client, run):
    begin(run.directory.parent / "before-one", 0)
    runs = client.get("/api/runs").json()
    assert [(each["id"], each["name"]) for each in runs] == [("0", "one"), ("1", "before-one")]


def test_what_is_gone_is_said(client, run):
    assert client.get("/api/runs/7").status_code == 404
    assert client.get("/api/runs/0/forests/x").status_code == 404
    missing = client.get("/api/runs/0/forests/1000")
    assert missing.status_code == 404
    assert "holds no forest of iteration 1000; there are 1, 2" in missing.text
    (run.directory / "recipe.json").unlink()
    assert "recipe.json is missing." in client.get("/api/runs/0").json()["notes"]


def test_every_answer_carries_the_policy_and_other_names_are_refused(client):
    for path in ("/", "/page.js", "/page.css", "/api/runs"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/", headers={"Host": "elsewhere.example"}).status_code == 400
    assert client.post("/api/runs").status_code == 405


def test_who_watches_is_told_which_run_changed(run):
    async def watch() -> list[str]:
        told: list[str] = []
        shelf = Shelf([run.directory.parent])
        changes = _changes(shelf, every=0.01)
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0.05)
        advance(run, 3)
        told.append(str((await waiting).data))
        begin(run.directory.parent / "two", 1)
        told.append(str((await anext(changes)).data))
        await changes.aclose()
        return told

    assert asyncio.run(watch()) == ["0", "1"]


def test_the_command_serves_pages_and_events_until_it_is_stopped(run):
    process = subprocess.Popen(
        [sys.executable, "-m", "spark_rl", "view", str(run.directory), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("1 run at http://127.0.0.1:")
        address = said.split()[3]
        with httpx.Client(base_url=address, timeout=60) as client:
            assert client.get("api/runs").json()[0]["name"] == "one"
            with client.stream("GET", "events") as stream:
                timer = threading.Timer(0.5, advance, (run, 3))
                timer.start()
                lines = iter(stream.iter_lines())
                assert next(line for line in lines if line.startswith("event")) == "event: changed"
                assert next(lines) == "data: 0"
                timer.join()
    finally:
        process.send_signal(2)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0 or err == "spark-rl: stopped\n"
    assert "Traceback" not in err


def test_a_port_in_use_is_one_sentence(run, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["view", str(run.directory), "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err
    assert main(["view", str(run.directory), "--port", "70000"]) == 2
    assert "--port is 70000" in capsys.readouterr().err


def test_a_forest_is_packed_once_until_it_changes(run):
    shelf = Shelf([run.directory])
    first = shelf.forest("0", 2)
    assert shelf.forest("0", 2) is first
    run.save_forest(Forest([draw([-1], {0: 1.0})], iteration=2))
    assert shelf.forest("0", 2) != first


def test_a_shelf_needs_runs(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        Shelf([tmp_path])
    json.dumps(Shelf([begin(tmp_path / "r").directory]).run("0"))
