"""The training loop: the same numbers whatever interrupts it, and what it does with nothing or too much to learn."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tiny
import torch
from tiny import RECIPE, Log, finished, start, untimed
from transformers import MistralConfig, MistralForCausalLM, set_seed
from trees import draw

from spark_rl import load_forest
from spark_rl.advantage.group import GroupMean
from spark_rl.common.progress import Quiet
from spark_rl.contracts import LanguageModel, Learner, ModelState, Ranks, Tokenizer
from spark_rl.engines.local.settings import Local
from spark_rl.engines.vllm.settings import Vllm
from spark_rl.environments.household import Household
from spark_rl.errors import TrainingDiverged
from spark_rl.learning import learner
from spark_rl.learning.batch import pack
from spark_rl.learning.learner import LocalLearner, has_signal
from spark_rl.learning.packing import Passes
from spark_rl.learning.trainer import train
from spark_rl.learning.update import trainer_logprobs
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.objective.loss import Loss
from spark_rl.objective.rewards import Rewards
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.transcript import Transcript
from spark_rl.prompting.window import Window
from spark_rl.runs import checkpoints
from spark_rl.runs.run import Run
from spark_rl.types import Task, Tree

QUIET = Quiet(None)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder).state_dict()


def equal(left: object, right: object) -> bool:
    """Equality of nests of tensors and plain values, to the bit."""
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and torch.equal(left, right)
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(equal(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return isinstance(right, list | tuple) and len(left) == len(right) and all(map(equal, left, right))
    return left == right


def assert_same(run: Run, other: Run, iterations: int = 4) -> None:
    """Forests, rows and the state after the last of these iterations agree."""
    for iteration in range(1, iterations + 1):
        assert load_forest(run.directory, iteration) == load_forest(other.directory, iteration)
    assert untimed(run.metrics()[:iterations]) == untimed(other.metrics()[:iterations])
    last = [found.checkpoints / f"{iterations:06d}" for found in (run, other)]
    assert equal(*map(weights, last))
    assert equal(*(torch.load(path / checkpoints.TRAINING, weights_only=True) for path in last))


# -- the same numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_an_interrupted_run_resumes_to_the_numbers_of_an_uninterrupted_one(tmp_path, stop_after):
    """Iteration 3 is after the checkpoint of 2: its row and its forest are forgotten and made again."""
    whole, _ = finished()
    run = start(tmp_path / "run", evaluation=RECIPE.evaluation)
    set_seed(stop_after)  # whatever the process drew before has no say
    with pytest.raises(KeyboardInterrupt):
        train(run, Log(stop_after))
    assert len(run.metrics()) == stop_after
    log = Log()
    train(Run.open(run.directory), log)
    assert (f"continuing after iteration {stop_after // 2 * 2}" in log.notes) == (stop_after >= 2)
    assert [row["iteration"] for row in run.metrics()] == [1, 2, 3, 4]
    assert_same(run, whole)
    assert run.evaluations() == whole.evaluations()


def test_a_run_killed_before_its_last_checkpoint_was_written_logs_no_iteration_twice(tmp_path):
    whole, _ = finished()
    directory = shutil.copytree(whole.directory, tmp_path / "run")
    shutil.rmtree(directory / "checkpoints" / "000004")
    (directory / "eval.json").unlink()
    run = Run.open(directory)
    train(run, QUIET)
    assert_same(run, whole)


def test_a_finished_run_is_left_as_it_is(tmp_path):
    whole, _ = finished()
    directory = shutil.copytree(whole.directory, tmp_path / "run")
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    train(Run.open(directory), QUIET)
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_one_recipe_and_seed_give_one_run_and_another_seed_another(tmp_path):
    """Neither a shorter plan nor the evaluations in between move a number."""
    whole, _ = finished()
    run = start(tmp_path / "same", iterations=2)
    train(run, QUIET)
    for row in (rows := [*whole.metrics()[:2]]):
        for name in [name for name in row if name.startswith("dev_")]:
            del row[name]
    assert untimed(run.metrics()) == untimed(rows)
    assert load_forest(run.directory, 2) == load_forest(whole.directory, 2)
    assert equal(weights(run.checkpoints / "000002"), weights(whole.checkpoints / "000002"))

    other = start(tmp_path / "other", iterations=1, seed=1)
    train(other, QUIET)
    trees, others = load_forest(run.directory, 1), load_forest(other.directory, 1)
    assert {tree.task.id for tree in trees} != {tree.task.id for tree in others}
    assert not equal(weights(other.checkpoints / "000001"), weights(run.checkpoints / "000002"))


@dataclass(frozen=True)
class Announced(Household):
    """The household, told which tasks come next; it remembers the calls in a list that is not a setting."""

    calls: ClassVar[list[list[str]]] = []

    def preload(self, tasks: Sequence[Task]) -> None:
        """Remember the tasks."""
        self.calls.append([task.id for task in tasks])


def test_a_world_hears_of_the_next_tasks_and_nothing_else_changes(tmp_path):
    whole, _ = finished()
    Announced.calls.clear()
    run = start(tmp_path / "run", env=Announced(**vars(tiny.WORLD)), evaluation=RECIPE.evaluation)
    train(run, QUIET)
    assert_same(run, whole)
    assert run.evaluations() == whole.evaluations()

    def ids(tasks: Sequence[Task]) -> list[str]:
        return [task.id for task in tasks]

    tests = ids([*run.recipe.env.tasks("L0", "test"), *run.recipe.env.tasks("L1", "test")])
    trained = {i: [tree.task.id for tree in load_forest(run.directory, i)] for i in (1, 2, 3, 4)}
    development = ids(run.recipe.env.tasks("L0", "dev"))
    assert len(tests) == len(set(tests)) == 10
    first, batches, rest = Announced.calls[0], Announced.calls[1:3], Announced.calls[3:]
    assert first == [*tests, *trained[1]]
    assert batches == [tests[3:5], tests[8:10]]  # the second batches of both levels, in batches of three
    assert rest[:4] == [trained[2], [*development, *trained[3]], trained[4], [*development, *tests]]
    assert rest[4:] == batches


# -- another learner ----------------------------------------------------------------------------------------------------


class Recording:
    """A learner as somebody else would write one: only the contract's members, and a note of each call."""

    def __init__(self, run: Run, model: LanguageModel, tokenizer: Tokenizer, *rest: Any) -> None:
        self._inner = LocalLearner(run, model, tokenizer, *rest)
        self.calls: list[tuple[Any, ...]] = []

    @property
    def version(self) -> int:
        return self._inner.version

    def has_signal(self, tree: Tree) -> bool:
        return self._inner.has_signal(tree)

    def weights(self) -> ModelState:
        self.calls.append(("weights", self.version))
        return self._inner.weights()

    def update(self, trees: Sequence[Tree], iteration: int) -> dict[str, float]:
        self.calls.append(("update", iteration, list(trees)))
        return self._inner.update(trees, iteration) | {"recorded": 7.0}

    def save(self, folder: Path, iteration: int, *, success: float | None = None) -> Path:
        self.calls.append(("save", iteration))
        return self._inner.save(folder, iteration, success=success)

    def load(self, path: Path | None) -> int:
        self.calls.append(("load", path))
        return self._inner.load(path)


def test_the_trainer_needs_only_the_contract_of_a_learner(tmp_path):
    """Another learner gets each forest once, its weights and version reach the executor, and it saves and loads."""
    learners: list[Recording] = []

    def make(*parts: Any) -> Recording:
        learners.append(Recording(*parts))
        return learners[-1]

    run = start(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(run, Log(stop_after=3), make)
    train(Run.open(run.directory), QUIET, make)
    first, second = learners
    assert isinstance(first, Learner)

    # Iteration 3 was interrupted after its row, so it is repeated from checkpoint 2. Each update follows its forest.
    checkpoint = run.checkpoints / "000002"
    assert [call[:2] for call in first.calls] == [
        *[("load", None), ("update", 1), ("weights", 1), ("update", 2), ("weights", 2), ("save", 2)],
        *[("update", 3), ("weights", 3)],
    ]
    assert [call[:2] for call in second.calls] == [
        *[("load", checkpoint), ("weights", 2)],
        *[("update", 3), ("weights", 3), ("update", 4), ("weights", 4), ("save", 4)],
    ]
    updates = [call for call in (*first.calls[:-2], *second.calls) if call[0] == "update"]
    for _, iteration, trees in updates:
        forest = load_forest(run.directory, iteration)
        assert trees == forest.trees
        assert forest.version == iteration - 1, "the executor has the weights of the update before"
    assert [row["recorded"] for row in run.metrics()] == [7.0] * 4
    whole, _ = finished()
    for iteration in range(1, 5):
        assert load_forest(run.directory, iteration) == load_forest(whole.directory, iteration)
    assert equal(weights(run.checkpoints / "000004"), weights(whole.checkpoints / "000004"))


class Idle:
    """A learner without an optimiser: it passes the same weights on under a new version."""

    def __init__(
        self, run: Run, model: LanguageModel, tokenizer: Tokenizer, tell: Callable[[str], None], ranks: Ranks
    ) -> None:
        self._model, self.version = model, 0

    def has_signal(self, tree: Tree) -> bool:
        return True

    def weights(self) -> ModelState:
        return self._model.state_dict()

    def update(self, trees: Sequence[Tree], iteration: int) -> dict[str, float]:
        self.version = iteration
        return {}

    def save(self, folder: Path, iteration: int, *, success: float | None = None) -> Path:
        path = folder / f"{iteration:06d}"
        path.mkdir()
        return path

    def load(self, path: Path | None) -> int:
        assert path is None
        return 0


def test_a_learner_need_not_train(tmp_path):
    run = start(tmp_path / "run", iterations=2)
    train(run, QUIET, Idle)
    assert [load_forest(run.directory, iteration).version for iteration in (1, 2)] == [0, 1]
    assert load_forest(run.directory, 1).trees == load_forest(finished()[0].directory, 1).trees
    assert [row["iteration"] for row in run.metrics()] == [1, 2]
    assert not any(name.startswith("update_") for row in run.metrics() for name in row)


# -- what is learnt -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [Window(3), Transcript()])
def test_what_was_sampled_is_what_is_trained(tmp_path, context):
    """Every stored log-probability is the trainer's; a row a node, or a row a leaf where prompts only append."""
    prompt = Prompt(context, instructions="none", list_actions=False, limit=4096)
    settings = replace(RECIPE.optimizer, without_signal="keep")  # the model has never seen a window
    run = start(tmp_path / "run", prompt=prompt, optimizer=settings, iterations=2)
    train(run, QUIET)
    model = load_model(run.checkpoints / "cold-start")
    forest = load_forest(run.directory, 1)
    batch = pack(forest.trees, [GroupMean()(tree) for tree in forest])
    assert sum(len(tree.forks) for tree in forest) > 0
    assert not any(node.truncated for tree in forest for node in tree.nodes)
    assert len(batch.rows) == sum(len(tree.leaves() if context == Transcript() else tree.nodes) for tree in forest)

    new = trainer_logprobs(model, batch, Passes(run.recipe.sampling.temperature, 10**5)).flat()
    assert len(new.old) == sum(len(node.completion) for tree in forest for node in tree.nodes)
    assert abs(new.old - new.sampling).max() < 1e-5
    for row in run.metrics():
        assert row["update_rollout_gap_max"] < 1e-5
        assert row["generated"] == sum(
            len(node.completion) for tree in load_forest(run.directory, int(row["iteration"])) for node in tree.nodes
        )


def test_both_ways_of_packing_learn_the_same(tmp_path):
    """Up to rounding in 32 bits; trees read fewer tokens."""
    rows = {}
    for packing in ("tree", "rows"):
        run = start(tmp_path / packing, optimizer=replace(RECIPE.optimizer, packing=packing), iterations=1)
        train(run, QUIET)
        (rows[packing],) = run.metrics()
    assert rows["tree"]["trained"] < 0.9 * rows["rows"]["trained"]
    for name in ("update_loss", "update_grad_norm", "update_reference_kl", "update_kl", "update_sampled_tokens"):
        assert rows["tree"][name] == pytest.approx(rows["rows"][name], rel=1e-3, abs=1e-6), name


def test_a_model_that_cannot_read_trees_is_trained_on_rows_and_this_is_said():
    run, _ = finished()
    torch.manual_seed(0)
    size: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = MistralForCausalLM(MistralConfig(vocab_size=1000, num_key_value_heads=1, sliding_window=64, **size)).eval()
    tokenizer, said, before = load_tokenizer(run.checkpoints / "cold-start"), [], model.lm_head.weight.clone()
    trees = load_forest(run.directory, 1).trees
    recipe = replace(run.recipe, loss=Loss(kl=0.0), optimizer=replace(RECIPE.optimizer, without_signal="keep", max_kl=1e9))
    stats = LocalLearner(Run(run.directory, recipe, {}), model, tokenizer, said.append).update(trees, 1)
    assert len(said) == 1
    assert "optimizer.packing rows" in said[0]
    assert "sliding_window" in said[0]
    batch = pack(trees, [GroupMean()(tree) for tree in trees])
    assert stats["trained"] == batch.tokens
    assert not torch.equal(model.lm_head.weight, before)


def test_an_update_moves_the_policy_towards_what_did_better():
    run, _ = finished()
    forest = load_forest(run.directory, 1)
    shaped = [run.recipe.rewards.shape(tree) for tree in forest]
    batch = pack(forest.trees, [run.recipe.advantage(tree) for tree in shaped])
    before, after = (
        trainer_logprobs(load_model(run.checkpoints / name), batch, Passes(1.0, 10**5)).flat()
        for name in ("cold-start", "000002")
    )
    assert ((after.old - before.old) * (before.positive + before.negative)).sum() > 0


def test_only_groups_with_signal_are_trained_unless_all_are_kept(tmp_path):
    """Nobody wins in one step, and penalties alone are no signal."""
    rewards = replace(RECIPE.rewards, inside=False)
    for choice, trained in (("drop", 0), ("keep", 2)):
        settings = replace(RECIPE.optimizer, without_signal=choice)
        run = start(
            tmp_path / choice, tree=replace(RECIPE.tree, horizon=1), rewards=rewards, optimizer=settings, iterations=1
        )
        train(run, log := Log())
        (row,) = run.metrics()
        assert row["trained_groups"] == trained
        assert (row["trained"] > 0) == (trained > 0)
        same = equal(weights(run.checkpoints / "000001"), weights(run.checkpoints / "cold-start"))
        assert same == (trained == 0)
        assert any("nothing is learnt" in note for note in log.notes) == (trained == 0)


def test_rows_count_the_groups_that_had_signal():
    run, _ = finished()
    for row in run.metrics():
        forest = load_forest(run.directory, int(row["iteration"]))
        credits = [run.recipe.advantage(run.recipe.rewards.shape(tree)) for tree in forest]
        assert row["trained_groups"] == sum(map(has_signal, credits)) > 0


def test_further_tasks_replace_groups_without_signal_and_the_gradients_noise_is_logged(tmp_path):
    settings = replace(RECIPE.optimizer, resample=3, measure_noise=True)
    # Penalties apart, so that groups in which nobody wins say nothing.
    run = start(tmp_path / "run", optimizer=settings, rewards=Rewards(), iterations=1)
    train(run, QUIET)
    (row,) = run.metrics()
    forest = load_forest(run.directory, 1)
    told = sum(len(set(tree.returns())) > 1 for tree in forest)
    assert row["trees"] == len(forest) == len({tree.task.id for tree in forest})
    assert len(forest) > 2 or told == 2
    assert row["trained_groups"] == told <= 2
    assert row["generated"] == sum(len(node.completion) for tree in forest for node in tree.nodes)
    assert ("gradient_snr" in row) == (told > 0)


def test_signal_is_any_trajectory_that_did_better_than_its_group():
    assert has_signal(GroupMean()(draw([-1, -1], {0: 1.0, 1: 0.0})))
    assert not has_signal(GroupMean()(draw([-1, -1], {0: 1.0, 1: 1.0})))
    assert not has_signal(GroupMean()(draw([-1, 0], {1: 1.0})))


def test_without_divergence_no_reference_is_loaded_and_importance_runs(tmp_path, monkeypatch):
    run = start(tmp_path / "run", loss=Loss(kl=0.0, importance=2.0), iterations=1)
    monkeypatch.setattr(learner, "load_model", lambda _: pytest.fail("a second model is held"))
    train(run, QUIET)
    (row,) = run.metrics()
    assert row["update_reference_kl"] == 0
    assert math.isfinite(row["update_loss"])


def told(tree: Tree, distance: float) -> Tree:
    """The tree as an engine would have told it whose log-probabilities are this far from the trainer's, up and down."""
    nodes = [
        replace(node, logprobs=tuple(x + distance * (-1) ** place for place, x in enumerate(node.logprobs)))
        for node in tree.nodes
    ]
    return replace(tree, nodes=tuple(nodes))


@pytest.mark.parametrize(
    ("engine", "loss", "distance", "cap"),
    [
        (Vllm(), {}, 0.015, 0.0),
        (Vllm(), {}, 0.03, 2.0),
        (Vllm(), {"trusted_gap": 0.04}, 0.03, 0.0),
        (Vllm(), {"importance": 5.0}, 0.015, 5.0),
        (Local(), {}, 0.03, 0.0),
    ],
)
def test_engines_that_differ_from_the_trainer_are_corrected_for(engine, loss, distance, cap):
    run, _ = finished()
    recipe = replace(run.recipe, engine=engine, loss=replace(run.recipe.loss, kl=0.0, **loss))
    cold = run.checkpoints / "cold-start"
    trees = [told(tree, distance) for tree in load_forest(run.directory, 1).trees]
    row = LocalLearner(Run(run.directory, recipe, {}), load_model(cold), load_tokenizer(cold)).update(trees, 1)
    assert row["update_importance"] == cap
    assert row["update_rollout_gap"] == pytest.approx(distance, abs=1e-4)


# -- when it goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learning_rate", [1.0, 1e38], ids=["blow-up", "nan"])
def test_a_run_that_diverges_keeps_its_last_good_checkpoint_and_goes_on_from_it(tmp_path, learning_rate):
    whole, _ = finished()
    run = start(tmp_path / "run", iterations=2)
    train(run, QUIET)
    shutil.copy(whole.directory / "recipe.json", run.directory)  # which has 4 iterations

    wild = replace(RECIPE, optimizer=replace(RECIPE.optimizer, learning_rate=learning_rate))
    with pytest.raises(TrainingDiverged, match=r"iteration 3: .*lower the learning rate .*--resume") as caught:
        train(Run(run.directory, wild, run.settings), QUIET)
    assert "\n" not in str(caught.value)
    assert checkpoints.latest(run.checkpoints) == run.checkpoints / "000002"
    assert equal(weights(run.checkpoints / "000002"), weights(whole.checkpoints / "000002"))

    train(Run.open(run.directory), QUIET)
    assert load_forest(run.directory, 4) == load_forest(whole.directory, 4)
    assert equal(weights(run.checkpoints / "000004"), weights(whole.checkpoints / "000004"))


# -- development slice and progress -------------------------------------------------------------------------------------


def test_the_best_on_the_development_slice_is_kept_whenever_it_is_found(tmp_path):
    run = start(
        tmp_path / "run",
        evaluation=replace(RECIPE.evaluation, levels=(), every=1, dev_tasks=2),
        keep=replace(RECIPE.keep, every=3, checkpoints=1),
        iterations=3,
    )
    train(run, QUIET)
    successes = [row["dev_success"] for row in run.metrics()]
    leader = successes.index(max(successes)) + 1
    assert checkpoints.best(run.checkpoints) == (run.checkpoints / f"{leader:06d}", max(successes))
    assert {path.name for path in run.checkpoints.glob("0*")} == {f"{leader:06d}", "000003"}


def test_progress_names_each_phase_and_advances_only_its_own():
    _, log = finished()
    assert log.phases == [
        *("demonstrations", "tokenizer", "cold start", "evaluate L0 before", "evaluate L1 before"),
        *("train", "evaluate L0 after", "evaluate L1 after"),
    ]
    assert log.advances["evaluate L0 before"] == log.advances["evaluate L1 after"] == [3, 5]
    assert log.advances["train"] == [], "the development slice is no part of this phase"
