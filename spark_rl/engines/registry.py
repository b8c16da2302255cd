"""The engines by name."""

from __future__ import annotations

__all__ = ["ENGINES"]

ENGINES: dict[str, str] = {
    "local": "spark_rl.engines.local.settings:Local",
    "vllm": "spark_rl.engines.vllm.settings:Vllm",
    "openai": "spark_rl.engines.openai:Endpoint",
}
"""Name on the command line (and in saved files) -> `module:Class` of the engine's settings, with the module that defines the
class. A new engine is one file and one line here."""
