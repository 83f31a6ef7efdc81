"""Whole conversions: foreign folders into checkpoints of this project, and back out of them."""
