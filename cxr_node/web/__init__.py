"""The node on a page: metrics, alerts, and what a browser sees. Reads the ledger; no image depends on it."""
