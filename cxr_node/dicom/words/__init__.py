"""The words and numbers that people read, and the rules for which of them may be said."""
