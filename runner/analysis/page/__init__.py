"""The page of a comparison: one file that opens without a network."""
