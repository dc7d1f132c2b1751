"""How well a profile does: metrics with intervals, acceptance, the model card."""
