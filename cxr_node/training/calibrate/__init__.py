"""From logits to probabilities, and to thresholds that keep a promise."""
