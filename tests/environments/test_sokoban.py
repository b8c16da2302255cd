"""Sokoban: hand-played boards, recorded games of an independent program, distances, splits, and the expert."""

from __future__ import annotations

import asyncio
import json
import pickle
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.contracts import Environment, World
from spark_rl.data.demonstrations import collect
from spark_rl.environments.check import check_world
from spark_rl.environments.games import NOTHING_HAPPENS, GameEnvironment
from spark_rl.environments.registry import find_task, load_world
from spark_rl.environments.replay import replay
from spark_rl.environments.sokoban import Board, Room, Rules, Sokoban
from spark_rl.environments.sokoban.board import MOVES, place, read
from spark_rl.environments.sokoban.expert import decide, pushes, slip
from spark_rl.environments.sokoban.rooms import canonical, carve, starts
from spark_rl.environments.sokoban.search import cells, distances, state
from spark_rl.errors import EnvironmentFailure, UsageError
from spark_rl.prompting.parsing import parse
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Request, Task

GAMES = [json.loads(line) for line in (Path(__file__).parent / "sokoban_games.jsonl").read_text().splitlines()]
WORLDS = {
    "default": Sokoban(),
    "small": Sokoban(size=6, boxes=1, moves=(4, 12), view="list"),
    "large": Sokoban(size=9, boxes=3, moves=(15, 40), view="both", reward="score"),
    "ends when lost": Sokoban(size=6, boxes=2, end_lost=True),
}
CORRIDOR = """
# # # # # #
# P X . O #
# . . . . #
# . . . . #
# . . . . #
# # # # # #
"""


def grid(board: Board) -> str:
    return replace(board, rules=Rules()).text.replace(" ", "").replace("\n", "/")


def walk(board: Board, *actions: str) -> Board:
    for action in actions:
        after = board.after(action)
        assert after is not None, action
        board = after
    return board


def distance(board: Board) -> int | None:
    return distances(board.room.size, board.room.floor, board.room.targets).get(state(board.player, board.boxes))


# -- rules ------------------------------------------------------------------------------------------------------------


def test_a_push_by_hand():
    board = read(CORRIDOR, Rules(reward="score", view="both"))
    assert board.text.splitlines()[1] == "# P X . O #"
    assert board.text.splitlines()[-1] == "player 11, box 12, target 14"
    assert board.actions() == ("down", "right")  # a wall above and to the left
    first = walk(board, "right")
    assert first.text.splitlines()[1] == "# . P X O #"
    assert (first.reward, first.won, first.fresh) == (-0.1, False, True)
    last = walk(first, "right")
    assert last.text.splitlines()[1] == "# . . P * #"
    assert last.reward == pytest.approx(-0.1 + 1 + 10)
    assert (last.won, last.done, last.actions(), last.after("left")) == (True, True, (), None)
    assert walk(replace(board, rules=Rules()), "right", "right").reward == 1.0


def test_a_box_moves_onto_a_target_and_off_it():
    board = read(CORRIDOR.replace("O #", ". #").replace("X .", "X O"), Rules(reward="score"))
    solved = walk(board, "right")
    assert solved.won
    two = read("#####/#PXO#/#.XO#/#...#/#####".replace("/", "\n"), Rules(reward="score"))
    on = walk(two, "right")
    assert (on.reward, on.done, on.progress) == (0.9, False, {"boxes": 0.5})
    line = read("#######/#PXO..#/#.X.O.#/#.....#/#.....#/#.....#/#######".replace("/", "\n"), Rules(reward="score"))
    off = walk(line, "right", "right")
    assert off.reward == pytest.approx(-1.1)
    assert off.progress == {"boxes": 0.0}


@pytest.mark.parametrize(
    ("row", "why"), [("#PX#..#", "a wall behind the box"), ("#PXX..#", "a box behind the box"), ("#P#X..#", "a wall")]
)
def test_what_is_blocked_changes_nothing(row, why):
    targets = row.count("X")
    board = read(f"#######/{row}/#.....#/#.....#/#.....#/#{'O' * targets}{'.' * (5 - targets)}#/#######".replace("/", "\n"))
    assert board.after("right") is None, why
    assert "right" not in board.actions()
    environment = GameEnvironment(lambda _: replace(board, rules=Rules(reward="score")))
    first = environment.reset(Task("sokoban", "", ""))
    answer = environment.step("right")
    assert answer.text == f"{NOTHING_HAPPENS}\n{first.text}"
    assert (answer.reward, answer.admissible, answer.done) == (-0.1, False, False)
    assert environment.position == replace(board, rules=Rules(reward="score"))


def test_symbols_read_back():
    text = "# # # # #\n# S * . #\n# . X O #\n# # . . #\n# # # # #"
    with pytest.raises(ValueError, match="one player"):
        read(text)  # three targets, two boxes
    board = read(text.replace("S", "P"))
    assert board.text == text.replace("S", "P")
    assert walk(board, "down", "up").text == board.text
    assert read(board.text) == board


@pytest.mark.parametrize(
    "text", ["#.#\n###\n###", "###\n#?#\n###", "####\n#P#\n####", "####\n#P.#\n#.X#\n####", "###\n#P#\n###"]
)
def test_grids_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="the grid"):
        read(text)


@pytest.mark.parametrize("game", GAMES, ids=[str(i) for i in range(len(GAMES))])
def test_games_of_an_independent_program_are_equal(game):
    board = read(game["level"].replace("/", "\n"), Rules(reward="score"))
    assert grid(board) == game["level"]
    assert distance(board) == game["shortest"]
    assert board.lost == (game["shortest"] is None)
    environment = GameEnvironment(lambda _: board)
    environment.reset(Task("sokoban", "", ""))
    for action, expected, reward, solved in zip(
        game["actions"], game["boards"], game["rewards"], game["solved"], strict=True
    ):
        answer = environment.step(action)
        position = environment.position
        assert isinstance(position, Board)
        assert grid(position) == expected
        assert answer.reward == pytest.approx(reward)
        assert answer.success == answer.done == solved


def test_the_recorded_games_hold_what_they_should():
    assert sum(len(game["actions"]) for game in GAMES) == 266
    assert {len(game["level"].split("/")) for game in GAMES} == {5, 6, 7, 8}
    assert {game["level"].count("X") + game["level"].count("*") for game in GAMES} == {1, 2, 3}
    assert {game["shortest"] is None for game in GAMES} == {True, False}
    assert any("jump" in game["actions"] for game in GAMES)
    assert any(reward == -1.1 for game in GAMES for reward in game["rewards"]), "a box pushed off a target"


# -- properties -------------------------------------------------------------------------------------------------------


@st.composite
def boards(draw):
    """A start of some room, and a walk from it."""
    rng = random.Random(draw(st.integers(0, 10**9)))
    boxes = draw(st.integers(1, 3))
    room = carve(draw(st.integers(5 if boxes < 3 else 6, 8)), boxes, rng)
    floor = list(cells(room.floor))
    player, *standing = rng.sample(floor, boxes + 1)
    board = Board(room, player, sum(1 << cell for cell in standing))
    for _ in range(draw(st.integers(0, 30))):
        if actions := board.actions():
            board = walk(board, rng.choice(actions))
    return board


@settings(max_examples=80)
@given(boards())
def test_moves_keep_everything_that_is_there(board):
    assert board.boxes & ~board.room.floor == 0
    assert pickle.loads(pickle.dumps(board)) == board
    assert hash(pickle.loads(pickle.dumps(board))) == hash(board)
    for action in (*MOVES, "jump", "", "UP"):
        after = board.after(action)
        assert (after is not None) == (action in board.actions())
        if after is not None:
            assert after.room is board.room
            assert after.boxes.bit_count() == board.boxes.bit_count()
            assert after.player != board.player
            assert after.room.floor & ~after.boxes & 1 << after.player
            assert (after.boxes & ~board.boxes).bit_count() == (after.boxes != board.boxes) == after.fresh
    if not board.won and grid(board).count("P") + grid(board).count("S") == 1:
        assert grid(read(board.text)) == grid(board)


@settings(max_examples=40)
@given(boards())
def test_distances_are_the_shortest_there_are(board):
    # A search forwards, by the rules alone; positions of the small rooms that boards() makes are few.
    seen, frontier, moves = {(board.player, board.boxes)}, [board], 0
    while frontier and not any(b.won for b in frontier) and len(seen) < 20_000:
        moves += 1
        following = [after for b in frontier for a in b.actions() if (after := b.after(a)) is not None]
        frontier = []
        for b in following:
            if (b.player, b.boxes) not in seen:
                seen.add((b.player, b.boxes))
                frontier.append(b)
    if len(seen) < 20_000:
        assert distance(board) == (moves if frontier else None)


@settings(max_examples=40)
@given(boards(), st.integers(0, 99))
def test_the_expert_goes_a_shortest_way_and_says_which(board, seed):
    left, rng = distance(board), random.Random(seed)
    if left is None:
        assert decide(board, rng).action in (board.actions() or MOVES)
        return
    spoken = ""
    while not board.done:
        decision = decide(board, rng)
        spoken = decision.reason
        assert decision.open_choice == decision.search
        assert not decision.search or board.fresh
        board = walk(board, decision.action)
        left -= 1
        assert distance(board) == left
    assert board.won
    assert not spoken or spoken.startswith("To push box ")


@settings(max_examples=80)
@given(boards())
def test_pushes_are_what_their_moves_lead_to(board):
    for push in [] if board.won else pushes(board):
        at_hand = replace(board, player=push.stand)
        after = walk(at_hand, push.move)
        assert after.boxes == board.boxes ^ 1 << push.box ^ 1 << after.player + board.room.ways()[push.move]
        rest = distance(after)
        assert push.total == (None if rest is None else push.walk + 1 + rest)
    wrong = None if board.won else slip(board)
    if wrong is not None:
        after = walk(board, wrong.action)
        assert after.boxes != board.boxes
        assert not after.lost
        assert (distance(after) or 0) >= (distance(board) or 0)


@given(st.integers(5, 10), st.integers(0, 2**62))
def test_turned_boards_have_one_form(size, seed):
    rng = random.Random(seed)
    rows = [[rng.random() < 0.4 for _ in range(size)] for _ in range(size)]

    def mask(rows):
        return sum(1 << i for i, bit in enumerate(bit for row in rows for bit in row) if bit)

    form = canonical(size, mask(rows))
    quarter = [list(row) for row in zip(*rows[::-1], strict=True)]
    for other in (quarter, rows[::-1], [row[::-1] for row in rows], [list(row) for row in zip(*rows, strict=True)]):
        assert canonical(size, mask(other)) == form
    assert form[0].bit_count() == mask(rows).bit_count()


@settings(max_examples=40)
@given(st.integers(5, 10), st.integers(1, 3), st.integers(0, 2**62))
def test_rooms_are_closed_and_connected(size, boxes, seed):
    room = carve(size, boxes, random.Random(seed))
    inside = {row * size + column for row in range(1, size - 1) for column in range(1, size - 1)}
    floor = set(cells(room.floor))
    assert floor <= inside
    assert room.targets & ~room.floor == 0
    assert room.targets.bit_count() == boxes
    seen, waiting = set(), [min(floor)]
    while waiting:
        cell = waiting.pop()
        if cell in floor - seen:
            seen.add(cell)
            waiting += [cell - size, cell + size, cell - 1, cell + 1]
    assert seen == floor
    assert carve(size, boxes, random.Random(seed)) == room
    for board, _ in zip(starts(room, 3, 9, random.Random(seed), Rules()), range(5), strict=False):
        found = distance(board)
        assert found is not None
        assert 3 <= found <= 9
        assert not board.boxes & room.targets


# -- tasks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORLDS)
def test_the_contract_holds(name):
    assert isinstance(WORLDS[name], World)
    assert isinstance(WORLDS[name].make(), Environment)
    report = check_world(WORLDS[name], tasks=6, steps=40)
    assert report.passed, report


@pytest.mark.parametrize("name", ["default", "small"])
def test_splits_and_levels_are_what_they_say(name):
    world = replace(WORLDS[name], rooms=40, train_tasks=100, dev_tasks=20, test_tasks=30)

    def levels(level: str, split: str) -> list[Board]:
        return [world.start(task) for task in world.tasks(level, split)]

    def rooms(level: str, split: str) -> set[tuple[int, ...]]:
        return {canonical(world.size, board.room.floor, board.room.targets) for board in levels(level, split)}

    def problems(level: str, split: str) -> set[tuple[int, ...]]:
        found = levels(level, split)
        return {canonical(b.room.size, b.room.floor, b.room.targets, b.boxes, 1 << b.player) for b in found}

    counts = {(level, split): len(world.tasks(level, split)) for level in ("L0", "L1", "L2") for split in ("dev", "test")}
    assert counts == {key: 20 if key[1] == "dev" else 30 for key in counts}
    assert len(world.tasks("L0", "train")) == 100
    assert world.tasks("L1", "train") == world.tasks("L2", "train") == world.tasks("L0", "train")
    everything = {split: set.union(*(problems(level, split) for level in ("L0", "L1", "L2"))) for split in ("dev", "test")}
    everything["train"] = problems("L0", "train")
    assert not everything["train"] & everything["dev"]
    assert not everything["train"] & everything["test"]
    assert not everything["dev"] & everything["test"]
    training = {canonical(world.size, *_masks(world.room("L0", "train", number))) for number in range(world.rooms)}
    assert rooms("L0", "train") | rooms("L0", "test") | rooms("L0", "dev") <= training
    for split in ("dev", "test"):
        assert not rooms("L1", split) & training
    assert not rooms("L1", "dev") & rooms("L1", "test")
    for level, boxes in (("L0", world.boxes), ("L1", world.boxes), ("L2", world.boxes + 1)):
        for board in levels(level, "test"):
            found = distance(board)
            assert board.boxes.bit_count() == board.room.targets.bit_count() == boxes
            assert found is not None
            assert world.moves[0] <= found <= world.moves[1]
            assert not board.boxes & board.room.targets
    assert {task.kind for task in world.tasks("L2", "test")} == {f"{world.boxes + 1} boxes"}


def _masks(room: Room) -> tuple[int, int]:
    return room.floor, room.targets


def test_tasks_are_what_they_were():
    # A level is made from its number: this one must be the same on every machine and with every version.
    board = WORLDS["small"].start(find_task(WORLDS["small"], "L1/test/7"))
    assert board.text == WORLDS["small"].start(WORLDS["small"].tasks("L1", "test")[7]).text == SEVENTH


SEVENTH = "player 21, box 32, target 31, wall 12, wall 13, wall 34, wall 43, wall 44"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 4}, "env.size is 4: it must lie between 5 and 10"),
        ({"boxes": 4}, "env.boxes is 4"),
        ({"moves": (5, 4)}, "env.moves is (5, 4)"),
        ({"moves": (0, 4)}, "env.moves is (0, 4)"),
        ({"rooms": 0}, "env.rooms is 0"),
        ({"view": "picture"}, 'unknown env.view "picture"'),
        ({"reward": "gold"}, 'unknown env.reward "gold"'),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(UsageError) as caught:
        load_world("sokoban", **options)
    assert said in str(caught.value)


@pytest.mark.parametrize("id", ["L0/train/2000", "L1/train/0", "L3/test/0", "L0/test/01", "L0/test/-1", "L0/test/²", ""])
def test_unknown_tasks_are_refused(id):
    with pytest.raises(UsageError, match="sokoban has no task"):
        Sokoban().task(id)


def test_what_cannot_be_made_is_one_sentence():
    world = Sokoban(size=5, boxes=1, moves=(60, 70), rooms=2)
    with pytest.raises(UsageError, match="is 60 to 70, but no room of size 5 with 1 box"):
        world.make().reset(world.tasks("L0", "test")[0])
    with pytest.raises(UsageError, match="none of sokoban's"):
        world.make().reset(Task("household", "L0/test/0", ""))
    with pytest.raises(EnvironmentFailure, match="before reset"):
        world.make().step("up")


# -- episodes ---------------------------------------------------------------------------------------------------------


def test_an_episode_may_end_when_it_is_lost():
    text = "#####/#...#/#PX.#/#O..#/#####".replace("/", "\n")
    assert not read(text).lost
    assert walk(read(text), "right").lost  # to the wall, away from the target
    assert not walk(read(text), "right").done
    ended = walk(read(text, Rules(end_lost=True)), "right")
    assert (ended.done, ended.won, ended.actions(), ended.reward) == (True, False, (), 0.0)
    assert not walk(read(text, Rules(end_lost=True)), "down").done


@pytest.mark.parametrize("name", WORLDS)
def test_forks_replays_and_uninterrupted_episodes_are_alike(name):
    world, rng = WORLDS[name], random.Random(3)
    for task in rng.sample(world.tasks("L0", "test"), 5):
        environment = world.make()
        texts, actions, forks = [environment.reset(task).text], [], []
        for _ in range(30):
            listed = environment.position.actions()
            if not listed:
                break
            forks.append((len(actions), environment.fork()))
            action = rng.choice((*listed, "jump"))
            actions.append(action)
            texts.append(environment.step(action).text)
        for taken, fork in forks:
            assert [fork.step(action).text for action in actions[taken:]] == texts[taken + 1 :]
            assert fork.state_key() == environment.state_key()
        assert replay(world.make(), task, actions, texts).text == texts[-1]
        assert environment.fork().position is environment.position


def test_odd_actions_never_raise():
    rng, world = random.Random(0), WORLDS["ends when lost"]
    words = (*MOVES, "", " ", "UP", "up ", "push up", "up\n", "\0", "left right", "ü", "0", "x" * 10_000, "None", "#")
    environment, tasks = world.make(), world.tasks("L2", "test")
    for number in range(10_000):
        if number % 40 == 0:
            observation = environment.reset(tasks[rng.randrange(len(tasks))])
        action = rng.choice(words) if rng.random() < 0.8 else "".join(map(chr, rng.choices(range(1, 0x3000), k=5)))
        listed = observation.actions
        observation = environment.step(action)
        assert observation.admissible == (action in listed)
        assert observation.text
    assert environment.position.progress["boxes"] <= 1


def test_demonstrations_win_and_explore_where_pushes_decide():
    world = WORLDS["small"]
    shown = asyncio.run(collect(world, 20, level="L0", horizon=16, prompt=Prompt(), tags="dense", slips=0.2))
    steps = [node for demonstration in shown for node in demonstration.tree.nodes]
    assert all(demonstration.tree.nodes[-1].success for demonstration in shown)
    assert any(demonstration.slips for demonstration in shown)
    assert 0.1 < sum(node.mode == "explore" for node in steps) / len(steps) < 0.5
    sparse = asyncio.run(collect(world, 20, level="L0", horizon=16, prompt=Prompt()))
    assert not any(demonstration.tree.nodes[0].mode == "explore" for demonstration in sparse)


def test_the_expert_answers_each_seed_and_goes_on_from_anywhere():
    world = WORLDS["small"]
    task = world.tasks("L0", "test")[0]
    environment, expert = world.make(), world.expert()
    observation, history = environment.reset(task), []
    for action in random.Random(1).choices(MOVES, k=6):
        if (after := environment.position.after(action)) is not None and not after.lost:
            observation = environment.step(action)
            history.append(action)
    while not observation.done:
        request = Request(task, (), observation, (1, 2, 3), history=tuple(history))
        [answers] = asyncio.run(expert.sample([request]))
        assert len(answers) == 3
        assert answers == asyncio.run(expert.sample([request]))[0]
        history.append(parse(answers[0].text).action)
        observation = environment.step(history[-1])
    assert observation.success


def test_cells_are_named_by_row_and_column():
    assert [place(cell, 7) for cell in (0, 8, 48)] == ["00", "11", "66"]
