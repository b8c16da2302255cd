"""Branching rules, one file for each: frozen values that decide when and where a tree forks (`contracts.Branching`)."""
