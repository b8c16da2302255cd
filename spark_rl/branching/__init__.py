"""When and where a tree forks: a file a rule, each a frozen value (`contracts.Branching`)."""
