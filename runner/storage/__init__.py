"""A study's folder, its table and its manifest; no JAX and no Hydra."""
