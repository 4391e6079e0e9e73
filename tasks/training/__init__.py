"""What training consists of: data, losses, schedules, optimizers, models and the loop over steps."""
