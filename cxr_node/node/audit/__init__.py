"""The audit trail of PS3.15 A.5: written on disk first, then forwarded over syslog."""
