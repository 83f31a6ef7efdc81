"""Meshes, and which mesh axes each dimension of a parameter is spread over."""
