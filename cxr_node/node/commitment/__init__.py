"""Storage Commitment as SCU (PS3.4 Annex J): the request, and the reports that answer it."""
