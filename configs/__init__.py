"""Recipes: each file returns the config of one stage of one model, and does nothing else."""
