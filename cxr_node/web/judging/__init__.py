"""Try: one file judged by a child process, and its results kept for minutes."""
