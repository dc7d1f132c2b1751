"""The only room that knows pydicom: from received bytes to a radiograph, and from an answer to result objects."""
