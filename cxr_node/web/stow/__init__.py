"""STOW-RS in: from a request to objects that are safe and acknowledged, by the receiver's own door (PS3.18 10.5)."""
