"""The files of a run (directory, forests, checkpoints), and the trackers that receive a copy of its log."""
