"""`cxr-node check` and `doctor`: is this configuration, and this machine, fit for the node?"""
