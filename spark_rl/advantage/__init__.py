"""What each step is credited with: a file an estimator, each a pure function of a tree (`contracts.AdvantageEstimator`)."""
