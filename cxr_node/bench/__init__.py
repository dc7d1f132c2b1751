"""Measure this machine at the node's own work (`cxr-node bench`)."""
