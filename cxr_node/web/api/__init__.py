"""HTTP for programs: predictions, descriptions, figures, health, metrics."""
