"""What a site measures of its node in service."""
