"""What every process of the node does: signals, logs, wake-up, signs of life."""
