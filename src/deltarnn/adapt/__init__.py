"""Thresholds to a loss budget, and fine-tuning towards the dense network."""
