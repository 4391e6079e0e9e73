"""Hydra's way into Seedbed; what does the work is in `runner`."""
