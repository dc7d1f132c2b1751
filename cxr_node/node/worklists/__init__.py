"""Unified Procedure Steps: what is asked of their manager and what it is told, as UPS Pull SCU (PS3.4 Annex CC)."""
