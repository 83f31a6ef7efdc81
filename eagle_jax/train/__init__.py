"""The three stages of training: what they train, one step of it, and the loop around."""
