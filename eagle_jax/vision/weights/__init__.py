"""Weight tables of the vision experts, one file each, named like the expert's own.

Source names are those of the original's checkpoints below the prefix of one expert;
targets are relative to the expert. Tables are data: neither JAX nor Flax is needed.
"""
