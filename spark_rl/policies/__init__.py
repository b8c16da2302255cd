"""Policies that need no model of their own: experts, chance, a person, and wrappers around other policies."""
