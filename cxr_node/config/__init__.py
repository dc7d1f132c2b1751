"""node.yaml: its schema, how it is read, and what may not stand in it together."""
