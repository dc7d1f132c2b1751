"""The serving room of the classifier: the only one, beside training, that knows torch."""
