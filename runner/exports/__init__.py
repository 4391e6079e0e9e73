"""Exports of a study, one module per target; each has `export(request) -> Exported` and imports its library itself."""
