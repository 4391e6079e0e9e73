"""Hydra and OmegaConf end here: override strings and YAML become a plan."""
