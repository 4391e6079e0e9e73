"""Compiled programs; the only package that imports JAX."""
