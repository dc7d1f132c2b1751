"""What a site measures of its node in service: agreement, drift, acceptance, constancy, replay."""
