"""Plans executed: schedule, blocks over threads, summary, shards and signals."""
