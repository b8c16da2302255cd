"""Advantage estimators, one file for each: pure functions from a tree to the credit of its steps (`AdvantageEstimator`)."""
