"""Data, train, evaluate, calibrate: scripts read top to bottom; imported by nobody but the command line."""
