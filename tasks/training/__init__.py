"""Training: models, data, losses, optimizers, schedules, and the loop over them."""
