"""Getting the games, counting them, keeping an index of them: from tiny made-up folders to the real archives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from spark_rl.cli import main
from spark_rl.common.progress import Quiet
from spark_rl.environments.alfworld import KINDS, Alfworld, games
from spark_rl.environments.alfworld.fetch import fetch
from spark_rl.environments.alfworld.games import OFFICIAL, FolderGames
from spark_rl.environments.alfworld.inventory import SplitFound, verify
from spark_rl.errors import UsageError

TOTALS = {"train": 3553, "valid_seen": 140, "valid_unseen": 134}


class Listener(Quiet):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(None)
        self.phases: list[tuple[str, int | None]] = []
        self.done = 0

    def phase(self, name: str, total: int | None = None, done: int = 0) -> None:
        self.phases.append((name, total))

    def advance(self, done: int, **_: object) -> None:
        self.done = done


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has nothing yet."""
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def content(goal: str = "put a mug in desk.", **changes: object) -> str:
    """A game in which only the engine would find something amiss."""
    game = {
        "pddl_domain": "(define (domain alfred))",
        "grammar": f'{{"rhs": "Your task is to: {goal}"}}',
        "pddl_problem": "(define (problem one))",
        "solvable": True,
        "walkthrough": ["go to desk 1"],
    }
    return json.dumps({key: value for key, value in (game | changes).items() if value is not None})


def name(split: str = "valid_seen", trial: str = "trial_a", kind: str = KINDS[0], room: int = 1) -> str:
    return f"{split}/{kind}-Mug-None-Desk-{room}/{trial}"


def write(root: Path, task_id: str, text: str | None = None) -> Path:
    game = root / "json_2.1.1" / task_id / "game.tw-pddl"
    game.parent.mkdir(parents=True, exist_ok=True)
    game.write_text(content() if text is None else text)
    return game


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with three games."""
    for task_id in (name(), name(trial="trial_b"), name("valid_unseen", kind=KINDS[5])):
        write(tmp_path / "small", task_id)
    return tmp_path / "small"


def fetched(source: Path | None, to: Path, *, link: bool = False) -> list[tuple[str, int]]:
    found = fetch(source, to, link=link, tell=Listener())
    assert not found.broken
    return [(split.name, sum(split.kinds)) for split in found.splits if sum(split.kinds)]


SMALL = [("valid_seen", 2), ("valid_unseen", 1)]


def command(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([*map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


# -- the official numbers -------------------------------------------------------------------------------------------


def test_official_numbers_add_up() -> None:
    assert {split: sum(counts) for split, counts in OFFICIAL.items()} == TOTALS
    assert sum(OFFICIAL["train"][:4]) == 2207
    assert OFFICIAL["valid_unseen"][4:] == (21, 17)


def test_the_validation_archive_is_whole(testdata: Path, tmp_path: Path) -> None:
    listener = Listener()
    found = fetch(testdata / "alfworld" / "games-valid.tar.zst", tmp_path / "to", link=False, tell=listener)
    assert [phase for phase, _ in listener.phases] == ["unpack games-valid.tar.zst (MB)", "verify the games"]
    assert listener.done == listener.phases[-1][1] == 274
    assert [split.kinds for split in found.splits] == [(0,) * 6, OFFICIAL["valid_seen"], OFFICIAL["valid_unseen"]]
    assert found.remarks() == ["train: none of 3,553 official games"]
    assert not found.broken
    world = Alfworld(data=str(tmp_path / "to"))
    assert [len(world.tasks(level, "test")) for level in ("L0", "L1", "L2")] == [140, 134, 38]
    assert len(list((tmp_path / "to").rglob("traj_data.json"))) == 274


@pytest.mark.slow
def test_the_whole_archive_is_whole(testdata: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = command(
        capsys, "env", "fetch", "alfworld", "--from", testdata / "alfworld" / "games.tar.zst", "--to", tmp_path
    )
    assert (code, "all 3,827 official games are there and whole" in out) == (0, True)
    for repeat in range(2):  # from the files, then from the index
        games._listed.cache_clear()
        world = Alfworld(data=str(tmp_path), dev_tasks=0)
        for split, level in (("train", "L0"), ("test", "L0"), ("test", "L1")):
            folder = "train" if split == "train" else "valid_seen" if level == "L0" else "valid_unseen"
            counts = Counter(task.kind for task in world.tasks(level, split))
            assert counts == dict(zip(KINDS, OFFICIAL[folder], strict=True)), repeat
        assert len(world.tasks("L2", "train")) == 2207
        assert len(world.tasks("L2", "test")) == 38


def test_what_differs_from_the_official_split_is_said() -> None:
    assert SplitFound("valid_seen", OFFICIAL["valid_seen"]).lacking() == ""
    assert SplitFound("train", (0,) * 6).lacking() == "train: none of 3,553 official games"
    assert (
        SplitFound("valid_seen", (34, 13, 29, 16, 25, 22)).lacking()
        == "valid_seen: 139 of 140 official games; missing: 1 place, 2 two; too many: 2 clean"
    )


# -- where games come from ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["json_2.1.1", "./json_2.1.1", "some/where/json_2.1.2", ""])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.zst"])
def test_archives(small: Path, tmp_path: Path, kind: str, inside: str) -> None:
    files = {
        "/".join(filter(None, (inside, file.relative_to(small / "json_2.1.1").as_posix()))): file
        for file in small.rglob("game.tw-pddl")
    }
    archive = tmp_path / f"games.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for place, file in files.items():
                packed.write(file, place)
    else:
        with tarfile.open(tmp_path / "games.tar", "w:gz" if kind == "tar.gz" else "w") as packed:
            for place, file in files.items():
                packed.add(file, place)
        if kind == "tar.gz":
            (tmp_path / "games.tar").rename(archive)
        elif kind == "tar.zst":
            if shutil.which("zstd") is None:
                pytest.skip("the program zstd is not here")
            subprocess.run(["zstd", "-q", tmp_path / "games.tar", "-o", archive], check=True)
    assert fetched(archive, tmp_path / "to") == SMALL
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["json_2.1.1"]  # nothing else is left


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar"
    game = tmp_path / "game"
    game.write_text(content())
    link = tarfile.TarInfo("json_2.1.1/" + name(trial="linked") + "/game.tw-pddl")
    link.type, link.linkname = tarfile.SYMTYPE, str(game)
    with tarfile.open(archive, "w") as packed:
        packed.add(game, f"json_2.1.1/{name()}/game.tw-pddl")
        for place in (
            "../escaped",
            "json_2.1.1/valid_seen/../../../game.tw-pddl",
            "json_2.1.1/valid_seen/x/../game.tw-pddl",
        ):
            packed.add(game, place)
        packed.add(game, f"{tmp_path}/absolute")
        packed.addfile(link)
    before = set(tmp_path.rglob("*"))
    assert fetched(archive, tmp_path / "in" / "to") == [("valid_seen", 1)]
    new = {path for path in set(tmp_path.rglob("*")) - before if not path.is_dir()}
    assert new == {tmp_path / "in" / "to" / "json_2.1.1" / name() / "game.tw-pddl"}


def test_a_folder_is_copied_linked_or_only_verified(small: Path, tmp_path: Path) -> None:
    assert fetched(small, tmp_path / "copy") == SMALL
    assert fetched(small / "json_2.1.1", tmp_path / "inner" / "json_2.1.1") == SMALL
    assert (tmp_path / "inner" / "json_2.1.1" / name()).is_dir()
    assert fetched(small, tmp_path / "linked", link=True) == SMALL
    assert (tmp_path / "linked" / "json_2.1.1").readlink() == small / "json_2.1.1"
    assert fetched(small, small) == SMALL


def test_a_split_is_added_but_none_is_replaced(small: Path, tmp_path: Path) -> None:
    write(tmp_path / "more", name("train"))
    assert fetched(tmp_path / "more", tmp_path / "to") == [("train", 1)]
    assert fetched(small, tmp_path / "to") == [("train", 1), *SMALL]
    before = sorted((tmp_path / "to").rglob("*"))
    for link in (False, True):
        with pytest.raises(UsageError, match="is there already; remove it, or choose another --to"):
            fetched(small, tmp_path / "to", link=link)
    assert sorted((tmp_path / "to").rglob("*")) == before


def test_the_home_folder_is_looked_at_when_nothing_is_said(small: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="spark-rl env fetch alfworld"):
        Alfworld().tasks("L0", "test")
    found = fetch(small, None, link=False, tell=Listener())
    assert found.root == home / ".cache" / "alfworld" / "json_2.1.1"
    assert len(Alfworld().tasks("L0", "test")) == 2
    monkeypatch.setenv("ALFWORLD_DATA", "~/elsewhere")  # what is set holds, although games are in the default place
    with pytest.raises(UsageError, match=f"no ALFWorld games in {home}/elsewhere"):
        Alfworld().tasks("L0", "test")
    assert fetch(small, None, link=False, tell=Listener()).root == home / "elsewhere" / "json_2.1.1"


# -- the official download ------------------------------------------------------------------------------------------

DOWNLOAD = """#!{python}
import pathlib, shutil, sys, time
to = pathlib.Path(sys.argv[sys.argv.index("--data-dir") + 1])
(to / "called").write_text(" ".join(sys.argv[3:]))
for percent in (0, 50, 100):
    sys.stderr.write(f"\\rDownloading games.zip: {{percent:3}}%|xxx| {{percent}}/100")
sys.stderr.write("\\n")
if {fails}:
    raise SystemExit("ConnectionError: no route to host")
shutil.copytree({games!r}, to / "json_2.1.1", dirs_exist_ok=True)
print("done")
"""


@pytest.fixture
def tool(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a program in the place of `alfworld-download`, which never goes to the network."""
    program = tmp_path / "bin" / "alfworld-download"
    program.parent.mkdir()
    python = sys.executable
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))

    def install(*, fails: bool = False) -> None:
        program.write_text(DOWNLOAD.format(python=python, fails=fails, games=str(small / "json_2.1.1")))
        program.chmod(0o755)

    return install


def test_without_a_source_the_official_tool_is_called(tool, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    tool()
    listener = Listener()
    found = fetch(None, tmp_path / "to", link=False, tell=listener)
    assert sum(map(sum, (split.kinds for split in found.splits))) == 3
    phases = ["alfworld-download", "Downloading games.zip (%)", "verify the games"]
    assert [phase for phase, _ in listener.phases] == phases
    assert (tmp_path / "to" / "called").read_text() == ""
    assert capfd.readouterr() == ("", "")
    (tmp_path / "to" / "json_2.1.1" / name() / "game.tw-pddl").write_text("broken")
    fetch(None, tmp_path / "to", link=False, tell=listener)
    assert (tmp_path / "to" / "called").read_text() == "--force"  # it would not replace the broken file otherwise


def test_nothing_is_downloaded_when_all_is_there(tool, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(fails=True)
    write(small, name("train"))
    for split, counts in (
        ("train", (1, 0, 0, 0, 0, 0)),
        ("valid_seen", (2, 0, 0, 0, 0, 0)),
        ("valid_unseen", (0, 0, 0, 0, 0, 1)),
    ):
        monkeypatch.setitem(OFFICIAL, split, counts)
    assert fetch(None, small, link=False, tell=Listener()).remarks() == ["all 4 official games are there and whole"]


def test_the_official_tool_fails(tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool(fails=True)
    code, out, err = command(capsys, "--quiet", "env", "fetch", "alfworld", "--to", tmp_path / "to")
    assert (code, out) == (2, "")
    assert "alfworld-download failed (ConnectionError: no route to host); call it again, or unpack" in err


def test_the_official_tool_is_not_installed(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = command(capsys, "--quiet", "env", "fetch", "alfworld", "--to", tmp_path / "to")
    assert code == 2
    assert err == 'spark-rl: alfworld-download needs the extra "alfworld": pip install "spark-rl[alfworld]"\n'
    assert not (tmp_path / "to").exists()


# -- the index ------------------------------------------------------------------------------------------------------

COUNT = 30


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A split that is worth an index."""
    monkeypatch.setattr(games, "_WORTH_AN_INDEX", COUNT)
    for room in range(COUNT):
        write(tmp_path / "many", name("train", room=room), content(goal=f"put mug {room:02} in desk."))
    return tmp_path / "many"


def listed(data: Path) -> list[str]:
    """What a new process lists."""
    games._listed.cache_clear()
    return [task.instruction for task in FolderGames(data / "json_2.1.1").split("train")]


def indexes(home: Path) -> list[Path]:
    return list((home / ".cache" / "spark-rl" / "alfworld").glob("*"))


def edit(game: Path, old: str, new: str, *, same_time: bool) -> None:
    status = game.stat()
    game.write_text(game.read_text().replace(old, new))
    if same_time:
        os.utime(game, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_files_are_read_once(many: Path, home: Path) -> None:
    first = listed(many)
    assert len(first) == COUNT
    [index] = indexes(home)
    game = many / "json_2.1.1" / name("train", room=7) / "game.tw-pddl"
    edit(game, "mug 07", "cup 99", same_time=True)
    assert listed(many) == first  # so the file was not read again
    edit(game, "mug 07", "cup 99", same_time=False)
    assert sorted(set(listed(many)) - set(first)) == ["put cup 99 in desk."]
    assert indexes(home) == [index]


def test_a_new_process_uses_the_index(many: Path) -> None:
    first = listed(many)
    edit(many / "json_2.1.1" / name("train", room=7) / "game.tw-pddl", "mug 07", "cup 99", same_time=True)
    code = (
        "import sys, pathlib\n"
        "from spark_rl.environments.alfworld import games\n"
        f"games._WORTH_AN_INDEX = {COUNT}\n"
        "found = games.FolderGames(pathlib.Path(sys.argv[1])).split('train')\n"
        "print('\\n'.join(task.instruction for task in found))"
    )
    done = subprocess.run([sys.executable, "-c", code, many / "json_2.1.1"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == first


def test_games_that_come_and_go_are_noticed(many: Path) -> None:
    assert len(listed(many)) == COUNT
    write(many, name("train", room=COUNT))
    assert len(listed(many)) == COUNT + 1
    shutil.rmtree(many / "json_2.1.1" / name("train", room=3))
    assert "put mug 03 in desk." not in listed(many)
    (many / "json_2.1.1" / name("train", room=4)).rename(many / "json_2.1.1" / name("train", "trial_z", room=4))
    games._listed.cache_clear()
    assert name("train", "trial_z", room=4) in [task.id for task in FolderGames(many / "json_2.1.1").split("train")]


def test_folders_have_indexes_of_their_own(many: Path, tmp_path: Path) -> None:
    first = listed(many)
    shutil.copytree(many, tmp_path / "other")  # same names, sizes and times
    game = tmp_path / "other" / "json_2.1.1" / name("train", room=7) / "game.tw-pddl"
    edit(game, "mug 07", "cup 99", same_time=True)
    assert "put cup 99 in desk." in listed(tmp_path / "other")
    assert listed(many) == first


@pytest.mark.parametrize("damage", [b"", b"[]", b"\xff\xfe", b'{"seal": 1, "goals": {}}', b'{"seal": "x", "goa'])
def test_a_damaged_index_does_no_harm(many: Path, home: Path, damage: bytes) -> None:
    first = listed(many)
    [index] = indexes(home)
    whole = index.read_bytes()
    index.write_bytes(damage)
    assert listed(many) == first
    assert index.read_bytes() == whole


def test_an_index_that_cannot_be_written_does_no_harm(many: Path, home: Path) -> None:
    (home / ".cache").mkdir(parents=True)
    (home / ".cache" / "spark-rl").write_text("in the way")
    assert len(listed(many)) == COUNT


def test_small_splits_have_no_index(small: Path, home: Path) -> None:
    assert len(FolderGames(small / "json_2.1.1").split("valid_seen")) == 2
    assert indexes(home) == []


# -- what a user can get wrong, at the command line -----------------------------------------------------------------


def test_what_was_found_is_shown(small: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    to = tmp_path / "it's here"
    code, out, err = command(capsys, "env", "fetch", "alfworld", "--from", small, "--to", to)
    assert code == 0
    assert err.splitlines() == [f"copy from {small} (files): 3", "verify the games: 3"]
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[:5] == [
        f"{to}/json_2.1.1",
        "split games official place look clean heat cool two",
        "train 0 3,553 0 0 0 0 0 0",
        "valid_seen 2 140 2 0 0 0 0 0",
        "valid_unseen 1 134 0 0 0 0 0 1",
    ]
    assert lines[5] == "train: none of 3,553 official games"
    assert lines[6].startswith("valid_seen: 2 of 140 official games; missing: 33 place, 13 look")
    assert out.splitlines()[-1] == f"export ALFWORLD_DATA='{tmp_path}/it'\"'\"'s here'"
    monkeypatch.setenv("ALFWORLD_DATA", str(to))
    _, out, _ = command(capsys, "env", "fetch", "alfworld", "--from", to)
    assert "export" not in out


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        (content()[:100], "Unterminated string"),
        ("[]", "not a JSON object"),
        ('{"a": 1}', '"solvable" is missing'),
        (content(pddl_problem=None), '"pddl_problem" is missing or empty'),
        (content(walkthrough=[]), '"walkthrough" is missing or empty'),
        (content(grammar="{}"), '"grammar" names no task'),
    ],
)
def test_broken_files_are_named(small: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str) -> None:
    game = write(small, name(trial="trial_c"), text)
    code, out, _ = command(capsys, "env", "fetch", "alfworld", "--from", small, "--to", small)
    assert code == 1
    [line] = [line for line in out.splitlines() if line.startswith(str(game))]
    assert f"is no whole game ({reason}" in line
    assert line.endswith(f"remove {small}/json_2.1.1/valid_seen and fetch it again")


def test_unsolvable_games_are_left_out_and_many_broken_ones_counted(small: Path) -> None:
    write(small, name(trial="trial_u"), content(solvable=False, walkthrough=None))
    for number in range(7):
        write(small, name("train", f"trial_{number}"), "broken")
    found = verify(small / "json_2.1.1", Listener())
    assert [sum(split.kinds) for split in found.splits] == [0, 2, 1]
    assert len(found.broken) == 7
    assert found.remarks()[-1] == "... and 2 more such files"


def test_errors_are_one_sentence(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("no archive")
    (tmp_path / "empty").mkdir()
    with tarfile.open(tmp_path / "gameless.tar", "w") as packed:
        packed.add(tmp_path / "text", "json_2.1.1/readme")
    with tarfile.open(tmp_path / "twice.tar", "w") as packed:
        packed.add(small, "one")
        packed.add(small, "two")
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as packed:
        packed.add(small, "one")
    whole = (tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with tarfile.open(tmp_path / "whole.tar", "w") as packed:
        packed.add(small, "one")
        last = packed.offset  # where the end mark starts
    whole = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "endless.tar").write_bytes(whole[:last])
    (tmp_path / "torn.tar").write_bytes(whole[: last + 100])
    (tmp_path / "spoilt.tar").write_bytes(whole[:last] + b"spoilt" + whole[last + 6 :])
    with zipfile.ZipFile(tmp_path / "broken.zip", "w") as packed:
        packed.write(small / "json_2.1.1" / name() / "game.tw-pddl", name() + "/game.tw-pddl")
    (tmp_path / "broken.zip").write_bytes((tmp_path / "broken.zip").read_bytes().replace(b"walkthrough", b"walkthr0ugh", 1))
    to = ("--to", tmp_path / "to")
    for words, sentence in {
        ("alfworld", "--from", tmp_path / "none"): "there is no such file or folder",
        ("alfworld", "--from", tmp_path / "text", *to): "it is damaged or no archive (zip, tar, tar.gz, tar.zst)",
        ("alfworld", "--from", tmp_path / "cut.tar.gz", *to): "it is damaged or no archive",
        ("alfworld", "--from", tmp_path / "endless.tar", *to): "no end mark",
        ("alfworld", "--from", tmp_path / "torn.tar", *to): "no end mark",
        ("alfworld", "--from", tmp_path / "spoilt.tar", *to): "no end mark",
        ("alfworld", "--from", tmp_path / "broken.zip", *to): "Bad CRC-32",
        ("alfworld", "--from", tmp_path / "gameless.tar", *to): "holds no games (SPLIT/TASK/TRIAL/game.tw-pddl)",
        ("alfworld", "--from", tmp_path / "twice.tar", *to): "holds games in one/json_2.1.1 and in two/json_2.1.1",
        ("alfworld", "--from", tmp_path / "empty", *to): "no ALFWorld games there; name the folder",
        ("alfworld", "--link", *to): "--link needs --from with a folder",
        ("alfworld", "--link", "--from", tmp_path / "gameless.tar", *to): "--link needs --from with a folder",
        ("alfworld", "--from", small, "--to", tmp_path / "text"): "could not be written",
        ("alfworld", "--from"): "--from needs a value",
        ("alfworld", "--form", small): 'unknown option "--form"',
        ("household",): "household has nothing to fetch: its tasks come with it",
        (): "needs an environment",
    }.items():
        code, out, err = command(capsys, "--quiet", "env", "fetch", *words)
        assert (code, out, err.count("\n")) == (2, "", 1), words
        assert sentence in err
        assert not (tmp_path / "to" / "json_2.1.1").exists(), words
        assert not list(tmp_path.glob("to/.*")), words


def test_a_full_disk_leaves_nothing_behind(small: Path, tmp_path: Path) -> None:
    write(small, name(trial="trial_large"), content(pddl_problem="x" * 100_000))
    code = (  # a limit on the size of files stands for a disk that is full
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "from spark_rl.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["--quiet", "env", "fetch", "alfworld", "--from", small, "--to", tmp_path / "to"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"spark-rl: {tmp_path}/to/json_2.1.1 could not be written (File too large); free some space or choose another --to\n"
    )
    assert list((tmp_path / "to").iterdir()) == []


def test_zstd_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "games.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    code, _, err = command(capsys, "--quiet", "env", "fetch", "alfworld", "--from", tmp_path / "games.tar.zst")
    assert code == 2
    assert "install the program zstd, or unpack it elsewhere and give --from the folder" in err


def test_env_check_says_how_many_games_there_are(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "textworld.envs", None)
    code, out, _ = command(capsys, "env", "check", "alfworld", "--env.data", small, "--tasks", "1")
    assert code == 1  # there is no engine
    assert out.splitlines()[0] == (
        f"official games in {small}/json_2.1.1: train 0 of 3,553, valid_seen 2 of 140, valid_unseen 1 of 134"
    )
    code, out, err = command(capsys, "env", "check", "alfworld", "--env.data", small.parent)
    assert (code, out) == (2, "")
    assert "spark-rl env fetch alfworld" in err


def test_an_unreadable_game_is_named(small: Path) -> None:
    game = small / "json_2.1.1" / name() / "game.tw-pddl"
    game.unlink()
    game.mkdir()
    with pytest.raises(Exception, match=r"game\.tw-pddl cannot be read") as error:
        FolderGames(small / "json_2.1.1").split("valid_seen")
    assert "unpack the ALFWorld archive again" in str(error.value)
