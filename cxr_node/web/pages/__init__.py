"""What a person sees and does: one module a page, and what they share."""
