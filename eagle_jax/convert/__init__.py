"""Foreign checkpoints to parameters and back: tables of rules, sources of tensors, one engine."""
