"""The experiments: one task a file, each a plain function that can be called in a notebook."""
