"""Checkpoints: whole or not at all, exact, and the right ones kept."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.utils import logging

from spark_rl.errors import StorageError, UsageError
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.models.new import new_model
from spark_rl.models.scratch import ScratchModel
from spark_rl.models.tokenizer import learn_tokenizer
from spark_rl.runs import checkpoints

TOKENIZER: Any = learn_tokenizer(["open the drawer", "take the egg"] * 9, vocabulary=320)


def trained(seed: int = 0, steps: int = 2) -> tuple[Any, torch.optim.AdamW]:
    """A model and its optimizer after a few steps on nothing in particular."""
    model = new_model(TOKENIZER, ScratchModel(hidden=16, layers=1, heads=2, kv_heads=1, intermediate=32), seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    advance(model, optimizer, steps)
    return model, optimizer


def advance(model: Any, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        ids = torch.randint(0, len(TOKENIZER), (2, 8))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def save(folder: Path, iteration: int, success: float | None = None) -> Path:
    model, optimizer = trained(iteration)
    return checkpoints.save(folder, iteration, model, TOKENIZER, optimizer, success=success)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_going_on_from_a_checkpoint_is_never_having_stopped(tmp_path):
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    model, optimizer = trained()
    path = checkpoints.save(tmp_path, 7, model, TOKENIZER, optimizer)
    advance(model, optimizer, 3)
    drawn = torch.rand(2).tolist(), random.random(), np.random.rand()

    again = load_model(path)
    resumed = torch.optim.AdamW(again.parameters(), lr=1e-2)
    assert checkpoints.load_training(path, resumed) == 7
    advance(again, resumed, 3)
    assert all(torch.equal(x, y) for x, y in zip(model.parameters(), again.parameters(), strict=True))
    assert (torch.rand(2).tolist(), random.random(), np.random.rand()) == drawn
    loaded: Any = load_tokenizer(path)
    assert loaded.get_vocab() == TOKENIZER.get_vocab()


def test_settings_of_the_optimizer_are_those_of_now_not_those_of_the_checkpoint(tmp_path):
    """So that a learning rate that was too high can be mended and the run continued."""
    path = save(tmp_path, 1)
    model = load_model(path)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.25)
    checkpoints.load_training(path, optimizer)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (5e-5, 0.25)
    assert all(state["step"] == 2 for state in optimizer.state.values())


def test_the_newest_few_and_the_best_are_kept(tmp_path):
    for iteration, success in ((1, 0.25), (2, 0.5), (3, 0.5), (4, None), (10, 0.125)):
        save(tmp_path, iteration, success)
    assert checkpoints.latest(tmp_path) == tmp_path / "000010"
    assert checkpoints.best(tmp_path) == (tmp_path / "000002", 0.5)
    checkpoints.prune(tmp_path, 2)
    assert names(tmp_path) == ["000002", "000004", "000010"]
    checkpoints.prune(tmp_path, 0)
    assert names(tmp_path) == ["000002", "000010"]


def test_a_folder_without_checkpoints_has_no_newest_and_no_best(tmp_path):
    assert checkpoints.latest(tmp_path / "none") is None
    assert checkpoints.best(tmp_path / "none") is None


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path, content):
    path = save(tmp_path, 1)
    (path / checkpoints.TRAINING).write_bytes(content)
    with pytest.raises(StorageError, match=r"checkpoint .*000001 cannot be read; delete it to continue from the one before"):
        checkpoints.load_training(path, trained()[1])


@dataclass
class Around:
    """A model or tokenizer that does something before or after it is saved."""

    inner: Any
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None

    def save_pretrained(self, folder: Path) -> None:
        self.before()
        self.inner.save_pretrained(folder)
        self.after()


@pytest.fixture
def fill() -> Iterator[Callable[[], None]]:
    """Lets no file grow beyond 4 KiB: system calls fail where a full disk would fail them, whoever makes them."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    logging.disable_progress_bar()
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    logging.enable_progress_bar()


@pytest.mark.parametrize("part", ["weights", "tokenizer", "training"])
def test_a_full_disk_leaves_one_sentence_and_the_checkpoints_before(tmp_path, fill, part):
    save(tmp_path, 1)
    model, optimizer = trained()
    writers: dict[str, tuple[Any, Any]] = {
        "weights": (Around(model, before=fill), TOKENIZER),
        "tokenizer": (model, Around(TOKENIZER, before=fill)),
        "training": (model, Around(TOKENIZER, after=fill)),
    }
    with pytest.raises(StorageError, match=r"^\S+000002 could not be written \(.+\); free some space or") as caught:
        checkpoints.save(tmp_path, 2, *writers[part], optimizer, success=0.5)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["000001"]
    assert checkpoints.load_training(tmp_path / "000001", optimizer) == 1


def test_a_mistake_of_ours_is_no_full_disk(tmp_path):
    wrong: Any = None
    with pytest.raises(AttributeError):
        checkpoints.save(tmp_path, 1, wrong, TOKENIZER, trained()[1])
    assert names(tmp_path) == []


def test_a_run_s_model_is_its_newest_checkpoint_or_the_one_that_is_named(tmp_path):
    run = tmp_path / "run"
    folder = run / "checkpoints"
    folder.mkdir(parents=True)
    (run / "recipe.json").touch()
    with pytest.raises(UsageError, match=r'holds no checkpoint "last"; there is none yet$'):
        checkpoints.model_folder(run)
    (folder / "cold-start").mkdir()
    assert checkpoints.model_folder(run) == folder / "cold-start"
    save(folder, 5, 0.5)
    save(folder, 10, 0.25)
    for name, found in (("last", "000010"), ("best", "000005"), ("5", "000005"), ("cold-start", "cold-start")):
        assert checkpoints.model_folder(str(run), name) == folder / found
    with pytest.raises(UsageError, match=r'holds no checkpoint "7"; there are 000005, 000010, cold-start$'):
        checkpoints.model_folder(run, "7")


def test_any_other_model_goes_by_its_own_name(tmp_path):
    assert checkpoints.model_folder(tmp_path) == tmp_path
    assert checkpoints.model_folder("maker/model") == "maker/model"
