"""Results to their destinations: one courier thread each, and what becomes of kept data afterwards."""
