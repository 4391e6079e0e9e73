"""Studies loaded, compared, drawn and reported; no JAX and no Hydra."""
