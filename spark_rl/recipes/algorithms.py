"""Algorithms: functions from a recipe to the recipe under an algorithm, by name in one table.

Each algorithm sets how trees grow and how steps are credited, and leaves world, model, prompt and cold start alone, so that
two algorithms on one recipe differ in nothing else. Only `rlvmr`, which has its own modes of reasoning, changes prompt and
cold start. The budget N (`tree.budget`) is the recipe's; forests of all algorithms have the same number of leaves at most.
Algorithms that credit whole trajectories against their group keep the recipe's own `GroupMean` with its settings
(`by_length`), which belong to the recipe's loss. `docs/algorithms.md` says which purpose each algorithm serves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from spark_rl.advantage.anchors import Anchors
from spark_rl.advantage.group import GroupMean
from spark_rl.advantage.leave_one_out import LeaveOneOut
from spark_rl.advantage.node_value import NodeValue
from spark_rl.advantage.rows import Rows
from spark_rl.advantage.sum import Sum
from spark_rl.advantage.tags import Tags
from spark_rl.branching.chains import Chains
from spark_rl.branching.entropy import Entropy
from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.branching.hybrid import Hybrid
from spark_rl.branching.new_roots import NewRoots
from spark_rl.branching.probability import Probability
from spark_rl.branching.revisits import Revisits
from spark_rl.common.loading import load_object
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import AdvantageEstimator, Branching
from spark_rl.errors import UsageError, unknown_name

__all__ = [
    "ALGORITHMS",
    "dapo",
    "entropy",
    "gigpo",
    "grpo",
    "hybrid",
    "paper",
    "random",
    "released",
    "rloo",
    "rlvmr",
    "rlvmr_tags",
    "strategic",
    "strategic_chains",
    "with_algorithm",
]

EXPLORE_RATE = 0.2
"""Share of steps that say explore after the household recipe's cold start (0.16 to 0.23 over five seeds)."""
RLVMR_SLIPS = 0.1
"""Least share of wrong steps in RLVMR's demonstrations."""


def with_algorithm(recipe: Recipe, name: str) -> Recipe:
    """The recipe under an algorithm of `ALGORITHMS`, or under `package.module:function` (a recipe in, a recipe out).

    Raises:
        UsageError: no such algorithm, module or function, or it gives no recipe.
    """
    if ":" in name:
        function = cast("Callable[[Recipe], Recipe]", load_object(name, "algorithm", kind="function"))
    else:
        known = {key.replace("-", "_"): function for key, function in ALGORITHMS.items()}
        if (key := name.replace("-", "_")) not in known:
            raise unknown_name("algorithm", name, ALGORITHMS)
        function = known[key]
    changed = function(recipe)
    if not isinstance(changed, Recipe):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user's own function
        raise UsageError(f'algorithm "{name}" gave {type(changed).__name__}: it must take a recipe and return one')
    return replace(changed, name=f"{recipe.name}-{name.rpartition(':')[2].replace('_', '-')}")


# -- parts ----------------------------------------------------------------------------------------------------------


def _forked(recipe: Recipe, branching: Branching) -> Recipe:
    """Half the leaves are roots, the rest is for forks while growing: at most N a tree (the paper's M = N / 2)."""
    return replace(recipe, tree=replace(recipe.tree, roots=_half(recipe), cap=0), branching=branching)


def _reallocated(recipe: Recipe, branching: Branching) -> Recipe:
    """Half the leaves are roots; the other half is one pool for all tasks; a task holds at most 2N leaves."""
    shape = replace(recipe.tree, roots=_half(recipe), cap=2 * recipe.tree.budget)
    return replace(recipe, tree=shape, branching=branching, advantage=STEP_CREDIT)


def _chains(recipe: Recipe, advantage: AdvantageEstimator) -> Recipe:
    """N independent trajectories."""
    shape = replace(recipe.tree, roots=recipe.tree.budget, cap=0)
    return replace(recipe, tree=shape, branching=Chains(), advantage=advantage)


def _half(recipe: Recipe) -> int:
    return max(1, recipe.tree.budget // 2)


def _group(recipe: Recipe) -> GroupMean:
    return recipe.advantage if isinstance(recipe.advantage, GroupMean) else GroupMean()


STEP_CREDIT = Sum(parts=(NodeValue(), Anchors(gamma=0.9, beta=0.5, sweeps=3, failed=False)))
"""Node values against the root's, plus anchors with bootstrapped backup: each unique step counts once (docs/algorithms.md).
The state after a refused action is no anchor, because all refusals have the same observation."""


# -- algorithms -----------------------------------------------------------------------------------------------------


def paper(recipe: Recipe) -> Recipe:
    """SPARK (arXiv 2601.20209, Eq. 3-7): fork after steps that say explore, first come, B = 2; credit from the leaves."""
    return replace(_forked(recipe, ExploreTag(width=2, at="after")), advantage=_group(recipe))


def released(recipe: Recipe) -> Recipe:
    """SPARK's released code, as far as it is a choice.

    Kept: forks as in `paper`; statistics over step rows, in which long trajectories count more; the price of a malformed
    answer (0.1) inside the normalised reward; dual clip 3, KL 0.01, entropy bonus 0.001; sampling at temperature 1.
    Left out as defects: groups filled up to N with random copies; forks of finished parents; groups of mixed tasks; an
    action counted as valid because its form is; success read off the reward. Also left out: mini-batches of 256 rows
    (ours are whole trees) and the learning rate, which are the recipe's.
    """
    changed = _forked(recipe, ExploreTag(width=2, at="after"))
    return replace(
        changed,
        advantage=Rows(malformed=0.1),
        rewards=replace(recipe.rewards, scale=10.0, malformed=0.0, inadmissible=0.0),
        loss=replace(recipe.loss, dual_clip=3.0, kl=0.01, entropy=0.001),
        sampling=replace(recipe.sampling, temperature=1.0),
    )


def grpo(recipe: Recipe) -> Recipe:
    """GRPO (arXiv 2402.03300): N chains, each against its group's mean and deviation. The baseline."""
    return _chains(recipe, _group(recipe))


def random(recipe: Recipe) -> Recipe:
    """`paper` with forks at random steps, as many as steps say explore: does the *place* of a fork matter?

    The rate is that of the household recipe's cold start; elsewhere set `branching.probability` to its explore ratio.
    """
    return replace(_forked(recipe, Probability(EXPLORE_RATE, width=2)), advantage=_group(recipe))


def entropy(recipe: Recipe) -> Recipe:
    """`paper` with forks where the policy's entropy is high, whatever the mode of the step."""
    return replace(_forked(recipe, Entropy()), advantage=_group(recipe))


def gigpo(recipe: Recipe) -> Recipe:
    """GiGPO (arXiv 2505.10978): N chains; group credit plus the credit of steps taken in one and the same state."""
    return _chains(recipe, Sum(parts=(_group(recipe), Anchors(gamma=0.95))))


def rlvmr_tags(recipe: Recipe) -> Recipe:
    """RLVMR's rewards of reasoning tags (arXiv 2507.22844), mapped on explore and think, on N chains."""
    return _chains(recipe, Sum(parts=(_group(recipe), Tags())))


def rlvmr(recipe: Recipe) -> Recipe:
    """RLVMR (arXiv 2507.22844): N chains; group credit plus that of its four modes, A = A_group + 0.5 A_mode.

    Prompt and cold start are its own: the agent plans, explores, reflects or monitors, and demonstrations say so by rule
    (`policies.four_modes`). They explore at every step of a search, and at least some steps are wrong, because only the step
    after a refused one can be a reflection. Left out: a model that writes the demonstrations' reasons.
    """
    changed = rlvmr_tags(recipe)
    slips = max(recipe.cold_start.slips, RLVMR_SLIPS)
    return replace(
        changed,
        prompt=replace(recipe.prompt, modes="rlvmr"),
        cold_start=replace(recipe.cold_start, tags="dense", slips=slips),
    )


def rloo(recipe: Recipe) -> Recipe:
    """REINFORCE leave-one-out (arXiv 2402.14740): N chains, each against the mean of the others.

    Nothing divides by a deviation, so a success is worth 1: on that scale penalties and divergence weigh as in `grpo`.
    """
    return replace(_chains(recipe, LeaveOneOut()), rewards=replace(recipe.rewards, scale=1.0))


def dapo(recipe: Recipe) -> Recipe:
    """DAPO (arXiv 2503.14476): `grpo` with a higher upper clip, no divergence, and no groups without signal.

    Groups of further tasks replace them. DAPO's soft penalty on overlong answers is left out: the horizon ends trajectories.
    """
    return replace(
        _chains(recipe, _group(recipe)),
        loss=replace(recipe.loss, clip_low=0.2, clip_high=0.28, kl=0.0, aggregation="token-mean"),
        optimizer=replace(recipe.optimizer, without_signal="drop", resample=3),
    )


def strategic(recipe: Recipe) -> Recipe:
    """Forks planned from the roots' outcomes: informative tasks first, the rarer outcome, the step itself sampled again."""
    return _reallocated(recipe, Revisits())


def strategic_chains(recipe: Recipe) -> Recipe:
    """The control of `strategic`: same allocation, same credit, but the leaves are new roots."""
    return _reallocated(recipe, NewRoots())


def hybrid(recipe: Recipe) -> Recipe:
    """`strategic` where outcomes are mixed, `strategic_chains` where every root failed."""
    return _reallocated(recipe, Hybrid())


ALGORITHMS: dict[str, Callable[[Recipe], Recipe]] = {
    "paper": paper,
    "released": released,
    "grpo": grpo,
    "random": random,
    "entropy": entropy,
    "gigpo": gigpo,
    "rlvmr": rlvmr,
    "rlvmr_tags": rlvmr_tags,
    "rloo": rloo,
    "dapo": dapo,
    "strategic": strategic,
    "strategic_chains": strategic_chains,
    "hybrid": hybrid,
}
"""Name -> function from a recipe to the recipe under the algorithm."""
