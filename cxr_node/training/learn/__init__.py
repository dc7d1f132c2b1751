"""The training loop: schedule, losses, checkpoints, choice of the model, release."""
