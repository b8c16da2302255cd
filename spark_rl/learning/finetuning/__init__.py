"""Fine-tuning through TRL: the cold start on demonstrations, DPO on pairs, and the baseline ETO, which uses both."""
