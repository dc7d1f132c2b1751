"""node.yaml: its schema, how it is read, and which values exclude each other."""
