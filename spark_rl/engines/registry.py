"""The engines by name."""

from __future__ import annotations

__all__ = ["ENGINES"]

ENGINES: dict[str, str] = {
    "local": "spark_rl.engines.local.settings:Local",
    "openai": "spark_rl.engines.openai:Endpoint",
}
"""Name on the command line -> `module:Class` of its settings. A new engine is one file and one line here."""
