"""The commands of `spark-rl`, a small file a group: each function takes a `Call` and returns an exit code."""
