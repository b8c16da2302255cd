"""The commands of `spark-rl`, one small file per group: each command function takes a `Call` and returns an exit code."""
