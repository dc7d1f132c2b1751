"""The command line: one module a group of commands, and the tables they print."""
