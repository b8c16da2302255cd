"""Errors that a user can fix: each message is one sentence that names the field, the value and the remedy.

SparkError                 the command line prints the message and exits with code 2, without a traceback
├── UsageError             a wrong name, value or combination
├── MissingExtra           an optional dependency is not installed
├── EnvironmentFailure     an environment raised, hung or died
│   └── ReplayMismatch     a replayed state differs from the recorded one
├── PromptTooLong          task and observation alone do not fit the context
├── PolicyFailure          a policy could not answer, or its answer cannot be used
├── StorageError           a file could not be written or read
└── TrainingDiverged       a loss is not finite, or the divergence from the reference blew up
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "EnvironmentFailure",
    "MissingExtra",
    "PolicyFailure",
    "PromptTooLong",
    "ReplayMismatch",
    "SparkError",
    "StorageError",
    "TrainingDiverged",
    "UsageError",
    "at_least",
    "unknown_name",
]


class SparkError(Exception):
    """Base of all errors whose message is meant for the user."""


class UsageError(SparkError):
    """A wrong name, value or combination of settings."""


class MissingExtra(SparkError):
    """An optional dependency is not installed; the message names the command that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} needs the extra "{extra}": pip install "spark-rl[{extra}]"')


class EnvironmentFailure(SparkError):
    """An environment raised, hung or died."""


class ReplayMismatch(EnvironmentFailure):
    """A replayed state differs from the recorded one: the environment is not deterministic."""


class PromptTooLong(SparkError):
    """Task and observation alone do not fit the prompt limit."""


class PolicyFailure(SparkError):
    """A policy could not answer, or gave an answer that cannot be used."""


class StorageError(SparkError):
    """A file could not be written or read."""


class TrainingDiverged(SparkError):
    """A loss is not finite, or the divergence from the reference blew up; the last good checkpoint is kept."""


def at_least(group: str, settings: object, **least: float) -> None:
    """Refuse settings below their minimum.

    Raises:
        UsageError: a setting is too small; the message names the first one as on the command line.
    """
    for name, bound in least.items():
        if getattr(settings, name) < bound:
            full = f"{group}.{name}" if group else name
            raise UsageError(f"{full} is {getattr(settings, name)}: it must be at least {bound}")


def unknown_name(what: str, name: str, known: Iterable[str]) -> UsageError:
    """A `UsageError` that lists the known names and suggests the nearest."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return UsageError(f'unknown {what} "{name}"{hint} (known: {", ".join(names)})')
