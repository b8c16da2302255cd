"""The `Webshop` world: the catalogue, and the goals of each split.

Invariants
----------
* A goal's index is its place in the one shuffle (seed 233), so `synthetic/17` is the same goal in every process and in the
  original. Splits are cut from this order.
* `canonical` splits goals: most of its test goals have a product that training also has. `disjoint` splits products: no
  product is in two splits.
* The three levels have the same tasks: L0 = L1 = L2.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, overload

import numpy as np

from spark_rl.contracts import Watcher
from spark_rl.environments.splits import check_names
from spark_rl.environments.webshop.catalogue import FILES
from spark_rl.environments.webshop.environment import Rules, WebshopEnvironment, winnable
from spark_rl.environments.webshop.expert import ShoppingExpert
from spark_rl.environments.webshop.fetch import Found, fetch
from spark_rl.environments.webshop.generated import FEWEST, MOST
from spark_rl.environments.webshop.goals import SEED
from spark_rl.environments.webshop.nouns import find_nouns
from spark_rl.environments.webshop.pages import Scene
from spark_rl.environments.webshop.shop import Generated, Official, Shop, open_shop
from spark_rl.errors import UsageError, at_least, unknown_name
from spark_rl.types import Task

__all__ = ["Webshop", "data_folder"]

_CHOICES = {
    "size": ("auto", "generated", "small", "full"),
    "goals": ("synthetic", "human"),
    "split": ("canonical", "disjoint"),
    "reward": ("score", "success"),
    "instruction": ("cut", "kept"),
}
_HELD_OUT = 60 / 415
"""Default share of the products with goals in each of `disjoint`'s dev and test splits: 60 in the small catalogue."""
_LISTED = 100_000
"""Most goals of a split that is held in memory as a list of tasks."""


def data_folder() -> Path:
    """The folder of official files, also for fetching: `$WEBSHOP_DATA`, else `~/.cache/webshop`."""
    return Path(os.environ.get("WEBSHOP_DATA") or "~/.cache/webshop").expanduser().resolve()


@dataclass(frozen=True)
class Webshop:
    """Buy a product for a customer: search, look at pages, choose options, buy; the score says how well the purchase fits.

    All levels have the same tasks: L0 = L1 = L2.
    """

    data: str = ""
    """Folder of the official files; empty: `$WEBSHOP_DATA`, else `~/.cache/webshop`."""
    size: Literal["auto", "generated", "small", "full"] = "auto"
    """The official catalogue of 1,000 or 1.18 million products, or a generated one. `auto`: an official catalogue in the
    folder, the small one first; a generated one where there is none and no folder is named."""
    goals: Literal["synthetic", "human"] = "synthetic"
    """Requests generated from attributes, or written by people (official catalogues only)."""
    split: Literal["canonical", "disjoint"] = "canonical"
    """`canonical`: the first 500 goals are for testing, the next 1,000 for development. `disjoint`: no product is in two
    splits."""
    test_tasks: int = 500
    """Number of goals in the canonical test split; at most a quarter of all."""
    dev_tasks: int = 1000
    """Number of goals in the canonical development split; at most a quarter of all."""
    held_out: int = 0
    """Number of products in each of `disjoint`'s test and development splits; 0: a seventh of the products with goals."""
    compat: bool = False
    """Compare options as the original does; by a mistake there, one synthetic goal in fifteen cannot be reached."""
    nouns: str = "rule"
    """How the nouns of a title are determined: `rule`, `spacy`, `spacy:MODEL`, or a JSON file {asin: [noun, ...]}."""
    reward: Literal["score", "success"] = "score"
    """Reward of a purchase. `score`: its score from 0 to 1, as in the original. `success`: 1 for score 1, else 0."""
    instruction: Literal["cut", "kept"] = "cut"
    """`cut`: pages leave out the request, since the prompt has it as the task. `kept`: pages as in the original."""
    per_page: int = 10
    """Most products on a page of results; 10 in the original."""
    products: int = 1000
    """Number of products of a generated catalogue, 50 to 5,000."""
    catalogue_seed: int = 0
    """Seed of a generated catalogue."""

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown_name(f"env.{name}", str(getattr(self, name)), known)
        at_least("env", self, test_tasks=1, dev_tasks=0, held_out=0, per_page=1)
        if not FEWEST <= self.products <= MOST:
            raise UsageError(f"env.products is {self.products}: it must lie between {FEWEST} and {MOST}")

    @property
    def name(self) -> str:
        """Short name, also `Task.environment`."""
        return "webshop"

    def tasks(self, level: str, split: str) -> Sequence[Task]:
        """Tasks of a level and a split, in the order of the shuffle; the same for all levels.

        Raises:
            UsageError: the level or split is not known, or the catalogue is missing.
        """
        check_names(level, split)
        find_nouns(self.nouns)  # raises for a wrong name here, and not only at the first purchase
        return _tasks(self, self.catalogue(), split)

    def task(self, task_id: str) -> Task:
        """The task with an id `synthetic/<index>` or `human/<index>`.

        Raises:
            UsageError: there is no such task.
        """
        sort, _, number = task_id.partition("/")
        if sort in ("synthetic", "human") and number.isdecimal() and str(int(number)) == number:
            goals = self.shop().goals(sort)
            if int(number) < len(goals):
                goal = goals[int(number)]
                return Task(self.name, task_id, goal.instruction.strip(), goal.product.kind)
            raise UsageError(f'webshop has no task "{task_id}": there are {len(goals)} {sort} goals, numbered from 0')
        raise UsageError(f'webshop has no task "{task_id}": an id is synthetic/INDEX or human/INDEX')

    def make(self) -> WebshopEnvironment:
        """A new environment."""
        return WebshopEnvironment(self.scene, self._rules)

    def scene(self, task: Task) -> tuple[Scene, bool]:
        """Shop and goal of a task, and whether it can be won."""
        if task.environment != self.name or self.task(task.id) != task:
            raise UsageError(f"task {task.id} of {task.environment} is none of webshop's with these options")
        sort, _, number = task.id.partition("/")
        scene = Scene(self.shop(), self.shop().goals(sort)[int(number)], self.per_page)
        return scene, _winnable(self.catalogue(), sort, int(number), self._rules)

    def expert(self, tags: Literal["sparse", "dense"] = "sparse") -> ShoppingExpert:
        """An expert that finds and buys the product; `tags` sets how often it explores."""
        return ShoppingExpert(self.make, tags)

    def unlimited(self) -> Webshop:
        """The world with pages as in the original, for comparison with recordings."""
        return replace(self, instruction="kept")

    def about(self) -> str:
        """The catalogue, the goals, and the share of test goals that can be won, which `spark-rl env check` prints."""
        shop, goals = self.shop(), self.shop().goals(self.goals)
        test = _indices(self, shop, "test")
        won = sum(_winnable(self.catalogue(), self.goals, index, self._rules) for index in test)
        where = shop.catalogue
        named = f"{where.size} catalogue in {where.folder}" if isinstance(where, Official) else "generated catalogue"
        return (
            f"{named}: {len(shop.products):,} products, {len(goals):,} {self.goals} goals; "
            f"ceiling: {won} of {len(test)} test goals can be won ({won / max(len(test), 1):.1%})"
        )

    def fetch(self, source: Path | None, to: Path | None, *, link: bool, tell: Watcher) -> Found:
        """Fetch and verify the official files of `size` (auto: the small ones): see `fetch.fetch`."""
        size = self.size if self.size in FILES else "small"
        folder = data_folder() if to is None else to.expanduser().resolve()
        return fetch(source and source.expanduser(), folder, size=size, link=link, tell=tell)

    def catalogue(self) -> Official | Generated:
        """The catalogue that these options name.

        Raises:
            UsageError: a folder is named that has no official catalogue.
        """
        folder = Path(self.data).expanduser().resolve() if self.data else data_folder()
        if self.size in FILES:
            return Official(str(folder), self.size)
        if self.size == "auto":
            for size, (items, *_) in FILES.items():
                if (folder / items).is_file():
                    return Official(str(folder), size)
            if self.data or os.environ.get("WEBSHOP_DATA"):
                wanted = " or ".join(items for items, *_ in FILES.values())
                raise UsageError(
                    f"no WebShop catalogue in {folder} ({wanted}): --env.data or $WEBSHOP_DATA must name its folder; "
                    "`spark-rl env fetch webshop` gets it, --env.size generated needs none"
                )
        return Generated(self.products, self.catalogue_seed)

    def shop(self) -> Shop:
        """Products, prices, goals and search."""
        return open_shop(self.catalogue())

    @property
    def _rules(self) -> Rules:
        return Rules(self.compat, self.nouns, self.reward, self.instruction)


@dataclass(frozen=True)
class _Tasks(Sequence[Task]):
    """Tasks that are made on demand, since the large catalogue has millions."""

    world: Webshop
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, place: int) -> Task: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Task]: ...
    def __getitem__(self, place: int | slice) -> Task | Sequence[Task]:
        chosen = self.indices[place]
        if isinstance(chosen, int):
            return self.world.task(f"{self.world.goals}/{chosen}")
        return _Tasks(self.world, chosen)


@lru_cache(maxsize=32)
def _tasks(world: Webshop, catalogue: Official | Generated, split: str) -> Sequence[Task]:
    lazy = _Tasks(world, _indices(world, open_shop(catalogue), split))
    return tuple(lazy) if len(lazy) <= _LISTED else lazy


def _indices(world: Webshop, shop: Shop, split: str) -> Sequence[int]:
    """Indices of a split's goals in the order of the shuffle."""
    goals = shop.goals(world.goals)
    if world.split == "canonical":
        test, dev = (min(most, len(goals) // 4) for most in (world.test_tasks, world.dev_tasks))
        cuts = {"test": range(test), "dev": range(test, test + dev), "train": range(test + dev, len(goals))}
        return cuts[split]
    owners = goals.owners()
    products = sorted(np.unique(owners).tolist(), key=shop.rank.__getitem__)  # by asin
    random.Random(SEED).shuffle(products)
    count = min(world.held_out or round(_HELD_OUT * len(products)), len(products) // 3)
    part = {"test": products[:count], "dev": products[count : 2 * count], "train": products[2 * count :]}[split]
    return np.flatnonzero(np.isin(owners, part)).tolist()


@lru_cache(maxsize=1 << 16)
def _winnable(catalogue: Official | Generated, sort: str, index: int, rules: Rules) -> bool:
    shop = open_shop(catalogue)
    goals = shop.goals(sort)
    return winnable(Scene(shop, goals[index]), goals.owner(index), rules)
