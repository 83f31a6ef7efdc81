"""Answering: unstacked layers, one donated cache per layer, a compiled decode loop."""
