"""The paper's tables and figures as data: which runs they need, what was published, and ours beside it."""
