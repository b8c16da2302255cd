"""The model card, which is the README.md of a model folder: the model, its training, its data and its results."""

from __future__ import annotations

from collections.abc import Mapping

from spark_rl import __version__
from spark_rl.common.tables import markdown_table
from spark_rl.config.recipe import Recipe
from spark_rl.evaluation.results import Levels
from spark_rl.evaluation.tables import markdown
from spark_rl.objective.preferences import Preferences
from spark_rl.prompting.instructions import MODES

__all__ = ["card"]


def card(
    recipe: Recipe,
    *,
    checkpoint: str,
    evaluations: Mapping[str, Levels],
    precision: str,
    kept: float | None,
    preferences: Preferences | None = None,
) -> str:
    """The model card as Markdown, with the header that model hubs read.

    Args:
        recipe: the recipe of the run.
        checkpoint: name of the checkpoint's folder.
        evaluations: contents of eval.json, by moment.
        precision: torch's name for the data type of the weights.
        kept: share of the adapters' change that survives rounding to the precision; None if all weights were trained.
        preferences: settings of preference learning, if the run used it instead of reinforcement learning.
    """
    base = recipe.model if isinstance(recipe.model, str) else ""
    hub = base if base.count("/") == 1 and not base.startswith((".", "/", "~")) else ""
    origin = hub or base.rstrip("/").rpartition("/")[2]  # only the folder's name: its path is private
    header = ["---", "library_name: transformers", "pipeline_tag: text-generation", *([f"base_model: {hub}"] if hub else [])]
    parts = [
        "\n".join([*header, "tags:", "- spark-rl", "- reinforcement-learning", "- agent", "---"]),
        f"# {recipe.name}",
        f"An agent for the text world `{recipe.env.name}`, trained with spark-rl {__version__} "
        f"({f'from `{origin}`' if origin else 'from scratch'}; "
        f"checkpoint `{checkpoint}`, weights in {precision}).",
        _training(recipe, checkpoint, preferences, kept),
        _evaluations(evaluations),
        _use(recipe),
    ]
    return "\n\n".join(parts) + "\n"


def _training(recipe: Recipe, checkpoint: str, preferences: Preferences | None, kept: float | None) -> str:
    """A table of the training that produced the checkpoint's weights."""
    lora = recipe.weights.lora_rank
    cold = recipe.cold_start
    rows = [
        ("trained", f"adapters of rank {lora}, merged" if lora else "all weights"),
        ("tasks", f"level {recipe.level}, training split, seed {recipe.seed}"),
        ("cold start", f"{cold.demonstrations} demonstrations, {cold.epochs} epochs, learning rate {cold.learning_rate:g}"),
    ]
    if preferences is not None and checkpoint != "cold-start":
        rows.append(("then", f"ETO: `{preferences}`"))
    elif checkpoint != "cold-start":
        rows += _reinforcement(recipe)
    if kept is not None:
        rows.append(("merging", f"{kept:.1%} of the adapters' change is kept in this precision"))
    return f"## Training\n\n{markdown_table([], rows)}"


def _reinforcement(recipe: Recipe) -> list[tuple[str, str]]:
    return [
        ("iterations", f"{recipe.iterations} of {recipe.tasks_per_iteration} tasks"),
        ("trees", f"{recipe.tree.budget} leaves from {recipe.tree.roots} roots, at most {recipe.tree.horizon} steps"),
        ("branching", f"`{recipe.branching}`"),
        ("advantage", f"`{recipe.advantage}`"),
        ("loss", f"`{recipe.loss}`"),
        ("learning rate", f"{recipe.optimizer.learning_rate:g}"),
        ("sampling", f"temperature {recipe.sampling.temperature:g}, at most {recipe.sampling.max_tokens} tokens a step"),
    ]


def _evaluations(evaluations: Mapping[str, Levels]) -> str:
    if not any(evaluations.values()):
        return "## Evaluation\n\nThe run was not evaluated on test tasks."
    moments = {"before": "After the cold start", "after": "After reinforcement learning"}
    tables = [f"{moments.get(moment, moment)}:\n\n{markdown(levels)}" for moment, levels in evaluations.items() if levels]
    return "## Evaluation\n\nEvery test task of a level once.\n\n" + "\n\n".join(tables)


def _use(recipe: Recipe) -> str:
    *others, last = (f"`<{mode}>...</{mode}>`" for mode in MODES[recipe.prompt.modes])
    blocks = f"{', '.join(others)} or {last}"
    return (
        "## Use\n\n"
        f"The model answers with one reasoning block, {blocks}, and one "
        "`<action>...</action>`, to prompts as spark-rl writes them.\n\n"
        "```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder", dtype="auto")\n'
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")\n'
        "```\n\n"
        f"```sh\nspark-rl eval path/to/this/folder --recipe {recipe.name}\n```"
    )
