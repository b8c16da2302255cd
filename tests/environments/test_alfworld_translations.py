"""Games are translated once and kept on disk: the same answers with and without, and nothing trusted that is damaged."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Generator
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from spark_rl.common import kept
from spark_rl.common.files import cache_folder
from spark_rl.environments.alfworld import Alfworld, ahead, engine, memo, translations
from spark_rl.environments.alfworld.engine import undisturbed
from spark_rl.environments.alfworld.translations import Translation, put_on_disk, translation
from spark_rl.errors import UsageError

pytest.importorskip("textworld", reason="ALFWorld's engine is the extra alfworld")

WORLD = Alfworld(games="generated", objects=8)
LARGE = replace(WORLD, objects=24)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """The folder of translations of a process that has translated nothing and loaded no game."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kept, "_written", type(kept._written)())
    monkeypatch.setattr(engine, "_engines", {})
    ahead._running.close()
    forget()
    yield cache_folder() / "alfworld" / "translations"
    ahead._running.close()
    forget()


def forget() -> None:
    """Drop what is in memory."""
    engine._engines.clear()
    translations._packed.clear()
    translations._unpacked.cache_clear()


@pytest.fixture
def translated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The problems that were given to the stock translator."""
    given: list[str] = []
    stock = translations._translate
    monkeypatch.setattr(translations, "_translate", lambda domain, problem: given.append(problem) or stock(domain, problem))
    return given


def seen(world: Alfworld, count: int = 3, steps: int = 12) -> list[tuple[str, tuple[str, ...], bool]]:
    """What random walks see in a few games, each with a fork that walks on from the middle."""
    found: list[tuple[str, tuple[str, ...], bool]] = []
    for number, task in enumerate(world.tasks("L1", "test")[::50][:count]):
        rng, environment = random.Random(number), world.make()
        observation = environment.reset(task)
        fork, middle = environment.fork(), observation
        for step in range(steps):
            if step == steps // 2:
                fork, middle = environment.fork(), observation
            observation = environment.step(rng.choice(observation.actions))
            found.append((observation.text, observation.actions, observation.done))
        for _ in range(3):
            middle = fork.step(rng.choice(middle.actions))
            found.append((middle.text, middle.actions, middle.done))
    return found


def test_the_answers_are_the_same_with_and_without_what_is_kept(translated: list[str], folder: Path) -> None:
    without = seen(replace(LARGE, cache=0))
    assert not folder.exists()
    assert len(translated) == 3
    forget()
    assert seen(LARGE) == without
    assert len(translated) == 6
    assert len(list(folder.iterdir())) == 3
    forget()
    assert seen(LARGE) == without  # read from the disk
    assert len(translated) == 6


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the stock engine does not work on this version of Python")
def test_the_answers_are_those_of_the_stock_engine() -> None:
    ours = seen(LARGE)
    forget()
    memo.uninstall()
    try:
        assert seen(replace(LARGE, memoise=False)) == ours
    finally:
        assert memo.install()


def test_a_damaged_or_deleted_translation_is_made_again(translated: list[str], folder: Path) -> None:
    first = seen(WORLD, count=1)
    [file] = folder.iterdir()
    good = file.read_bytes()
    flipped = bytes([*good[:-1], good[-1] ^ 1])
    for damaged in (b"", b"not packed", good[:-1], flipped, zlib.compress(b'{"sas": 1}'), zlib.compress(b"[1, 2, 3, 4, 5]")):
        file.write_bytes(damaged)
        forget()
        assert seen(WORLD, count=1) == first
        assert file.read_bytes() == good
    file.unlink()
    forget()
    assert seen(WORLD, count=1) == first
    assert file.read_bytes() == good
    assert len(translated) == 8


def test_the_key_is_the_text_and_the_versions(translated: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    game = WORLD.source().read(WORLD.tasks("L1", "test")[0].id)
    domain, problem = game["pddl_domain"], game["pddl_problem"]
    with undisturbed():
        first = translation(domain, problem, 1)
        assert translation(domain, problem, 1) == first
        assert len(translated) == 1
        translation(domain, problem + "\n", 1)
        assert len(translated) == 2
        monkeypatch.setattr(translations, "_version", lambda package: "1.8.0")
        assert translation(domain, problem, 1) == first
        assert len(translated) == 3


def test_a_translation_is_data_and_the_same_in_every_process(folder: Path) -> None:
    task = LARGE.tasks("L1", "test")[0]
    code = f"""
        from spark_rl.environments.alfworld import Alfworld
        world = Alfworld(games="generated", objects=24)
        world.make().reset(world.task({task.id!r}))
    """
    files = []
    for seed in "01":
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=os.environ | {"PYTHONHASHSEED": seed}, check=True)
        [file] = folder.iterdir()
        files.append(file.read_bytes())
        file.unlink()
    assert files[0] == files[1]
    parts = json.loads(zlib.decompress(files[0]))
    assert astuple(Translation(*parts))[0].startswith("begin_version")


def test_a_full_folder_drops_what_was_used_longest_ago(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "CHECKED", 1)
    small = replace(WORLD, cache=0.03)  # 30 kB
    for number, task in enumerate(WORLD.tasks("L1", "test")[:12]):
        small.make().reset(task)
        for file in folder.iterdir():
            os.utime(file, (number, number))
    assert 1 <= len(list(folder.iterdir())) < 12
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 30_000


def test_games_are_translated_ahead_and_then_only_read(
    translated: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spark_rl.environments.alfworld.world.cores", lambda: 2)
    tasks = WORLD.tasks("L1", "test")[::50][:3]
    WORLD.preload(tasks)
    WORLD.preload([replace(tasks[0], id="valid_seen/nothing/there"), *tasks[:1]])  # its error is not ours
    waits = time.monotonic() + 300
    while time.monotonic() < waits and not (folder.is_dir() and len([*folder.glob("[!.]*")]) == 3):
        time.sleep(0.05)
    ahead_of_time = seen(WORLD)
    assert not translated
    for file in folder.iterdir():
        file.unlink()
    forget()
    assert seen(WORLD) == ahead_of_time
    assert len(translated) == 3


def test_nothing_is_translated_ahead_where_nobody_could_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for world, number in ((WORLD, 1), (replace(WORLD, cache=0), 2), (replace(WORLD, memoise=False), 2)):
        monkeypatch.setattr("spark_rl.environments.alfworld.world.cores", lambda number=number: number)
        world.preload(WORLD.tasks("L1", "test")[:1])
    assert not ahead._running.all()


@pytest.mark.parametrize("objects", [8, pytest.param(40, marks=pytest.mark.slow)])
def test_the_translation_is_that_of_the_stock_translator_to_the_byte(objects: int) -> None:
    source = replace(WORLD, objects=objects).source()
    games = [source.read(task.id) for task in source.split("valid_seen")[::20]]
    found: list[list[Translation]] = []
    for installs in (True, False):
        assert memo.install()
        if not installs:
            memo.uninstall()
        with undisturbed():
            found.append([translations._translate(game["pddl_domain"], game["pddl_problem"]) for game in games])
    assert memo.install()
    assert len({name for each in found[0] for name, _ in each.actions}) > 10
    assert found[0] == found[1]


def test_what_is_there_is_not_translated_again(translated: list[str], folder: Path) -> None:
    game = WORLD.source().read(WORLD.tasks("L1", "test")[0].id)
    with undisturbed():
        for _ in range(2):
            put_on_disk(game["pddl_domain"], game["pddl_problem"], 1)
    assert len(translated) == 1
    assert len(list(folder.iterdir())) == 1


def test_wrong_values() -> None:
    with pytest.raises(UsageError, match="cache is -1"):
        Alfworld(cache=-1)
