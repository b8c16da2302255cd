"""Modules of vLLM by name, for the modules here that derive classes from its own.

Invariant: every module of the package imports without extras. Where vLLM is missing, each of its classes is `object`, and
nothing is ever made of what derives from it, since `process.check_version` comes first.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

__all__ = ["interface"]


class _Missing:
    def __getattr__(self, name: str) -> type:
        return object


def interface(module: str) -> Any:
    """A module of vLLM, such as "vllm.v1.sample.logits_processor"."""
    return import_module(module) if find_spec("vllm") else _Missing()
