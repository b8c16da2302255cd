"""Hand-made trees for tests: a few lines draw one."""

from __future__ import annotations

from spark_rl.types import Node, Task, Tree

TASK = Task("drawn", "drawn/1", "find the key")


def node(parent: int, path: tuple[int, ...], **settings: object) -> Node:
    """A step with unremarkable content; any field can be set."""
    fields: dict[str, object] = {
        "parent": parent,
        "path": path,
        "prompt": (1, 2),
        "completion": (3, 4),
        "logprobs": (-0.5, -0.25),
        "text": "<think>on</think><action>go</action>",
        "mode": "think",
        "reasoning": "on",
        "action": "go",
        "well_formed": True,
        "admissible": True,
        "state_key": "here",
        "observation": "You are there.",
        "actions": (),
        "reward": 0.0,
        "done": False,
        "success": False,
    }
    return Node(**(fields | settings))  # type: ignore[arg-type]


def draw(parents: list[int], rewards: dict[int, float] | None = None, **each: object) -> Tree:
    """A tree from its parent list; `rewards` ends those nodes with that reward."""
    tree = Tree(TASK, "You are here.", ("go", "stay"))
    born: dict[int, int] = {}
    for index, parent in enumerate(parents):
        above = tree.nodes[parent].path if parent >= 0 else ()
        number = born.get(parent, 0)
        born[parent] = number + 1
        end = rewards is not None and index in rewards
        reward = rewards[index] if rewards is not None and end else 0.0
        tree.nodes.append(node(parent, (*above, number), reward=reward, done=end, success=reward > 0, **each))
    tree.opened = len(tree.leaves())
    return tree
