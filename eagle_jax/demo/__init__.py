"""The demonstration: a small honest data set from real input, and what is said of it."""
