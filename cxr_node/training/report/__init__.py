"""`cxr-node evaluate` and `compare`: the pages."""
