"""The shape of the package, read off its source: who imports whom, how long things are, what is exported."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "spark_rl"

# A module imports only from rows above its own. A row names folders (and the few modules beside them), not single files:
# modules of one folder may import one another, as long as no circle arises.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("types",),
    ("contracts",),
    ("common",),
    ("prompting",),
    ("advantage", "branching", "environments", "models"),
    ("objective", "policies"),
    ("engines",),
    ("rollout",),
    ("config",),
    ("evaluation",),
    ("runs",),
    ("data",),
    ("report",),
    ("server",),
    ("learning",),
    ("scale",),
    ("recipes",),
    ("experiments",),
    ("commands",),
    ("cli",),
    ("__main__",),
)

# (importer, imported): why the rule is broken there.
EXCEPTIONS: dict[tuple[str, str], str] = {}

# Libraries that take long to import or need not be installed: only these modules import them at their head. All others
# import them inside the function that needs them, so that `--help`, rollouts and reports stay light.
HEAVY = {
    "torch", "transformers", "tokenizers", "safetensors", "trl", "datasets", "accelerate", "peft",
    "textworld", "alfworld", "fast_downward", "scienceworld", "py4j", "starlette", "uvicorn", "sse_starlette",
    "tensorboard", "wandb", "rapidfuzz", "spacy", "openai", "vllm", "ray",
}  # fmt: skip
MAY_BE_HEAVY = {
    "models.load", "models.new", "models.tokenizer", "models.adapters", "models.threads", "models.fetch",
    "models.tree_attention", "models.logprobs",
    "engines.local.attention", "engines.local.batch", "engines.local.cache", "engines.local.decoding",
    "engines.local.engine", "engines.local.levels", "engines.local.packed_weights", "engines.local.passes",
    "engines.sampling", "engines.remote.engine", "engines.remote.weights", "engines.vllm.inside", "engines.vllm.transfer",
    "server.app", "runs.checkpoints",
    "learning.forecast", "learning.learner", "learning.memory", "learning.optimizer", "learning.prepare", "learning.trainer",
    "learning.update", "learning.sharding", "learning.held",
    "learning.finetuning.sft", "learning.finetuning.dpo", "learning.finetuning.eto",
}  # fmt: skip

# Imported in a process in which torch cannot be. `rollout.executors` loads an engine where one is asked for.
WITHOUT_TORCH = (
    "errors", "types", "contracts", "common", "prompting", "advantage", "branching", "environments", "objective", "policies",
    "models.scratch", "models.weights", "models.vocabulary", "models.pretrained", "engines.openai", "engines.answers",
    "engines.registry", "engines.local.settings", "engines.vllm.settings", "engines.vllm.process", "engines.stops",
    "engines.remote.host", "engines.remote.kept",
    "rollout.grow", "rollout.states", "rollout.resampling", "rollout.tasks", "rollout.playing", "rollout.metrics",
    "config", "runs.run", "runs.forests", "runs.trackers", "evaluation", "data", "report", "learning.batch",
    "learning.packing", "learning.dynamic_sampling", "recipes", "experiments", "cli",
)  # fmt: skip

MOST_LINES = 450
LONG = {"contracts": "all contracts on one page"}
MOST_FUNCTION_LINES = 60
MOST_CLASS_LINES = 150
MOST_TRAINER_LINES = 300


@dataclass(frozen=True)
class Module:
    """One source file of the package; `name` is without `spark_rl.`, and empty for the package itself."""

    name: str
    path: Path
    source: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """The package it lies in, empty at the top."""
        if self.path.name == "__init__.py":
            return self.name
        return self.name.rpartition(".")[0]


@cache
def modules() -> dict[str, Module]:
    """All modules of the package by name."""
    found: dict[str, Module] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        source = path.read_text(encoding="utf-8")
        found[name] = Module(name, path, source, ast.parse(source, str(path)))
    return found


def parametrize_modules() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("module", modules().values(), ids=[name or "spark_rl" for name in modules()])


def row(name: str) -> int | None:
    """Index of the layer that a module belongs to; None when it stands nowhere."""
    best = max(
        ((len(entry), index) for index, layer in enumerate(LAYERS) for entry in layer if within(name, entry)),
        default=None,
    )
    return best[1] if best else None


def within(name: str, package: str) -> bool:
    """Whether a module is this one or lies in this package."""
    return name == package or name.startswith(package + ".")


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported; `from a import b` gives both `a` and `a.b`, as b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(module: Module) -> set[str]:
    """Modules of the package that a module imports, anywhere in it."""
    names = {name.removeprefix("spark_rl.") for name in imports(module.tree) if name.startswith("spark_rl.")}
    return {name for name in names if name in modules() and name != module.name}


def at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements run when the module is imported: no function bodies, nothing under `if TYPE_CHECKING`."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        statement = waiting.pop()
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            waiting.extend(statement.orelse)
            continue
        yield statement
        waiting.extend(child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.stmt))
        waiting.extend(
            inner
            for handler in ast.iter_child_nodes(statement)
            if isinstance(handler, ast.ExceptHandler | ast.match_case)
            for inner in handler.body
        )


@parametrize_modules()
def test_a_module_imports_only_from_rows_above(module: Module) -> None:
    if module.name == "":
        return  # the package's front door names modules of several rows, and imports them at first use
    own = row(module.name)
    if own is None and module.source.strip():
        pytest.fail(f"{module.name} stands in no row of LAYERS: give it one")
    for target in sorted(ours(module)):
        if module.package and within(target, module.package.split(".")[0]):
            continue
        above = row(target)
        assert (module.name, target) in EXCEPTIONS or (above is not None and own is not None and above < own), (
            f"{module.name} (row {own}) imports {target} (row {above}): move one of them, or give a reason in EXCEPTIONS"
        )


def test_no_import_runs_in_a_circle() -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for target in sorted(ours(modules()[name])):
                visit(target, (*path, name))
            done.add(name)

    for name in modules():
        if name:
            visit(name, ())


def test_every_exception_is_still_needed() -> None:
    for importer, imported in EXCEPTIONS:
        assert imported in ours(modules()[importer]), f"{importer} no longer imports {imported}"


@parametrize_modules()
def test_heavy_libraries_are_imported_where_they_are_needed(module: Module) -> None:
    if any(within(module.name, entry) for entry in MAY_BE_HEAVY):
        return
    for statement in at_import(module.tree):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            heavy = {name.partition(".")[0] for name in imports(statement)} & HEAVY
            assert not heavy, (
                f"{module.name} imports {heavy} in line {statement.lineno}: do it in the function that needs it"
            )


def test_rollouts_and_reports_import_without_torch() -> None:
    present = [f"spark_rl.{name}" for name in modules() if any(within(name, entry) for entry in WITHOUT_TORCH)]
    code = (
        "import importlib, sys\n"
        "for name in ('torch', 'transformers', 'trl', 'textworld'): sys.modules[name] = None\n"
        f"for name in {present!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@parametrize_modules()
def test_files_and_functions_are_short(module: Module) -> None:
    lines = module.source.count("\n")
    most = MOST_TRAINER_LINES if module.name == "learning.trainer" else MOST_LINES
    assert lines <= most or module.name in LONG, f"{module.name} has {lines} lines"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MOST_FUNCTION_LINES, f"{module.name}.{node.name} has {length} lines"
        if isinstance(node, ast.ClassDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            name = f"{module.name}.{node.name}"
            assert length <= MOST_CLASS_LINES, f"{name} has {length} lines: split it by responsibility"


@parametrize_modules()
def test_public_modules_say_what_they_are(module: Module) -> None:
    if module.source.strip():
        assert ast.get_docstring(module.tree), f"{module.name} has no docstring"


@parametrize_modules()
def test_all_is_sorted_and_exact(module: Module) -> None:
    declared = next(
        (s for s in module.tree.body if isinstance(s, ast.Assign) and ast.unparse(s.targets[0]) == "__all__"), None
    )
    if declared is None:
        return
    names = ast.literal_eval(declared.value)
    ordered = sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert names == ordered, f"{module.name}.__all__ is not sorted (constants, classes, the rest): {ordered}"
    defined = set(defined_names(module.tree))
    assert set(names) <= defined, f"{module.name}.__all__ names what is not there: {set(names) - defined}"
    if module.path.name != "__init__.py":
        public = {s.name for s in module.tree.body if isinstance(s, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)}
        missing = {name for name in public if not name.startswith("_")} - set(names)
        assert not missing, f"{module.name}.__all__ lacks {missing}: list them, or start their names with an underscore"


def defined_names(tree: ast.Module) -> Iterator[str]:
    """Names bound at the top of a module, those under `if TYPE_CHECKING` included."""
    body = [inner for s in tree.body for inner in (s.body if isinstance(s, ast.If) else [s])]
    for statement in body:
        match statement:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Import() | ast.ImportFrom():
                yield from (alias.asname or alias.name for alias in statement.names)
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case _:
                pass


def test_no_file_speaks_of_the_machine_it_was_written_on() -> None:
    # Put together here, so that this file does not hold what it looks for.
    forbidden = ["/" + folder + "/" for folder in ("work", "root")]
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    for name in filter(None, done.stdout.split("\0")):
        path = REPOSITORY / name
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        found = [string for string in forbidden if string in text]
        assert not found, f"{name} names a folder of somebody's machine: {found}"
