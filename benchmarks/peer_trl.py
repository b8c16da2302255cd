"""TRL's half of `peer.py`: the household world behind TRL's environment interface, and TRL's trainer under a clock.

Invariant: after the same answers, TRL's model reads the same tokens as ours, and the same answer has the same effect.
`Episode` writes prompts with our `Prompt.render` and reads answers with our `Prompt.parse`. The tokenizer that
`speaking_tools` makes writes them as turns of the user. The head of `peer.py` lists what differs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from spark_rl.config.recipe import Recipe
from spark_rl.contracts import ModelState, Tokenizer
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.rollout.tasks import choose_tasks
from spark_rl.types import Node, Task, Tree

TURNS = (
    "{%- set tools = none -%}{%- set turns = namespace(all=[]) -%}{%- for message in messages -%}"
    "{%- if message.role == 'tool' -%}{%- set turns.all = turns.all + [{'role': 'user', 'content': message.content}] -%}"
    "{%- elif message.tool_calls -%}{%- set said = message.content ~ (message.tool_calls | tojson) -%}"
    "{%- set turns.all = turns.all + [{'role': message.role, 'content': said}] -%}"
    "{%- else -%}{%- set turns.all = turns.all + [message] -%}{%- endif -%}"
    "{%- endfor -%}{%- set messages = turns.all -%}"
)
"""The head of TRL's chat template, before the model's own: answers of tools become turns of the user. Calls of tools are
written for TRL's check of the template alone; TRL takes what the model said from its tokens."""


@dataclass
class Lap:
    """One iteration of one side. Seconds are CPU-seconds, tokens are counted without padding."""

    rollout: float = 0.0
    update: float = 0.0
    trajectories: int = 0
    steps: int = 0
    wins: int = 0
    prefilled: int = 0
    """Prompt tokens that went through the model."""
    reused: int = 0
    """Prompt tokens whose keys and values were kept."""
    generated: int = 0
    trained: int = 0
    """Tokens that went through the model with gradients."""

    @property
    def seconds(self) -> float:
        """Of the whole iteration."""
        return self.rollout + self.update


def chosen(recipe: Recipe, iteration: int) -> list[Task]:
    """The tasks of an iteration (from 1), the same for all."""
    tasks = recipe.env.tasks(recipe.level, "train")
    return choose_tasks(tasks, recipe.tasks_per_iteration, seed=recipe.seed, iteration=iteration)


class Episode:
    """A trajectory behind TRL's environment interface: `act` is the one tool, and its answers are our prompt's words.

    TRL takes each public method for a tool, so all others are private.
    """

    def __init__(self, recipe: Recipe, tasks: Mapping[str, Task], over: str) -> None:
        """`tasks` by id; `over` answers where the episode has ended, and is too long for TRL to go on."""
        self._recipe, self._tasks, self._over = recipe, tasks, over

    def reset(self, task: str, **_: object) -> str:
        """Start a task; returns the first prompt."""
        self._state = self._recipe.env.make()
        seen = self._state.reset(self._tasks[task])
        self._tree = Tree(self._tasks[task], seen.text, seen.shown if self._recipe.prompt.list_actions else ())
        return self._words()

    def act(self, answer: str) -> str:
        """Take a step.

        Args:
            answer: Reasoning and action.

        Returns:
            What the agent sees.
        """
        parsed, nodes = self._recipe.prompt.parse(answer), self._tree.nodes
        seen = self._state.step(parsed.action)
        shown = seen.shown if self._recipe.prompt.list_actions else ()
        step = (
            answer,
            parsed.mode,
            parsed.reasoning,
            parsed.action,
            parsed.well_formed,
            seen.admissible,
            "",
            seen.text,
            shown,
        )
        nodes.append(Node(len(nodes) - 1, (0,) * (len(nodes) + 1), (), (), (), *step, seen.reward, seen.done, seen.success))
        return self._over if self._ended() else self._words()

    def get_reward(self) -> float:
        """The return of the trajectory."""
        (score,) = self._tree.returns()
        return score

    def _ended(self) -> bool:
        nodes = self._tree.nodes
        return bool(nodes) and (nodes[-1].done or len(nodes) == self._recipe.tree.horizon)

    def _words(self) -> str:
        return self._recipe.prompt.render(self._tree, len(self._tree.nodes) - 1, None).messages[-1]["content"]


def speaking_tools(tokenizer: Tokenizer) -> Any:
    """The tokenizer as TRL needs it: every answer is one call of `act`, and answers of tools are turns of the user."""
    changed: Any = tokenizer

    def parse_response(ids: Sequence[int], **_: object) -> dict[str, Any]:
        said = ids[:-1] if ids[-1] == changed.eos_token_id else ids
        arguments = {"answer": changed.decode(said, clean_up_tokenization_spaces=False)}
        call = {"type": "function", "function": {"name": "act", "arguments": arguments}}
        return {"role": "assistant", "content": "", "tool_calls": [call]}

    changed.chat_template = TURNS + changed.chat_template
    changed.response_template = {}  # so that TRL does not look for one; it asks `parse_response`
    changed.parse_response = parse_response
    return changed


class Counting(GRPOTrainer):
    """TRL's trainer with a clock around its rollout, and counters of what the model reads and writes."""

    lap: Lap

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.lap, start = Lap(), time.process_time()
        scored = super()._generate_and_score_completions(inputs)
        self.lap.rollout = time.process_time() - start
        self.lap.trained = int(scored["prompt_mask"].sum() + scored["completion_mask"].sum())
        assert self.environments
        trees = [episode._tree for episode in self.environments if episode._ended()]
        if len(trees) < len(inputs):
            raise SystemExit("TRL ended a trajectory early: --horizon is too large for the run's prompt.limit")
        self.lap.trajectories, self.lap.steps = len(trees), sum(len(tree.nodes) for tree in trees)
        self.lap.wins = sum(tree.nodes[-1].success for tree in trees)
        return scored

    def _generate_single_turn(self, prompt_ids: list[list[int]], *rest: Any, **options: Any) -> Any:
        completions, logprobs = super()._generate_single_turn(prompt_ids, *rest, **options)
        self.lap.prefilled += sum(map(len, prompt_ids))
        self.lap.generated += sum(map(len, completions))
        return completions, logprobs


class Turns(TrainerCallback):
    """Measures TRL's iterations, and lets the others have their turn after each."""

    def __init__(self, after: Callable[[Lap, ModelState], None]) -> None:
        """`after` gets TRL's iteration and weights."""
        self.after = after
        self.trainer: Counting

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock; the rollout comes after."""
        self.start = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop the clock: the optimiser has stepped."""
        lap = self.trainer.lap
        lap.update = time.process_time() - self.start - lap.rollout
        assert self.trainer.model is not None
        self.after(lap, self.trainer.model.state_dict())


def trainer_of(recipe: Recipe, folder: Path, iterations: int, rows: int, turns: Turns, out: Path) -> Counting:
    """TRL's trainer with the settings of the recipe.

    Args:
        recipe: from `settings`, under `grpo`.
        folder: the model.
        iterations: optimiser steps, a rollout before each.
        rows: trajectories in a backward pass.
        turns: the callback; gets the trainer.
        out: folder that TRL may write to.
    """
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # `environment_factory` may change, as each use would say
    tokenizer = speaking_tools(load_tokenizer(folder))
    plan = [task for number in range(1, iterations + 1) for task in chosen(recipe, number)]
    samples, longest = recipe.tree.budget, recipe.prompt.limit
    over = "x " * (longest + 1)
    assert len(tokenizer(over, add_special_tokens=False)["input_ids"]) > longest
    by_id = {task.id: task for task in plan}
    optimizer = recipe.optimizer
    config = GRPOConfig(
        output_dir=str(out),
        max_steps=iterations,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=recipe.tasks_per_iteration * samples // rows,
        num_generations=samples,
        max_completion_length=longest,
        generation_kwargs={"max_new_tokens": recipe.sampling.max_tokens},
        temperature=recipe.sampling.temperature,
        shuffle_dataset=False,
        learning_rate=optimizer.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.max_grad_norm,
        loss_type="dapo",  # the mean over all sampled tokens
        epsilon=recipe.loss.clip_low,
        beta=recipe.loss.kl,
        gradient_checkpointing=False,
        bf16=False,  # no casting back and forth: the weights have the precision of the model
        use_cpu=True,
        dataloader_pin_memory=False,
        seed=recipe.seed,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = turns.trainer = Counting(
        model=load_model(folder, device="cpu", dtype=recipe.weights.dtype),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": ""}], "task": task.id} for task in plan]),
        processing_class=tokenizer,
        environment_factory=lambda: Episode(recipe, by_id, over),
        callbacks=[turns],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
