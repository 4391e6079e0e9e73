"""Pictures of a comparison as values: what is drawn where. The page draws them as SVG, `figures` by matplotlib."""
