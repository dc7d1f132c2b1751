"""`cxr-node demo`: a node and a small PACS on loopback, and a folder to look into."""
