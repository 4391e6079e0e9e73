"""Tasks as the runner knows them: read from their source, checked, and imported when they are executed."""
