"""The Storage SCP: from an association request to an object that is safe and acknowledged."""
