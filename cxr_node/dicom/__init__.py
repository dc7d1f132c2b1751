"""The only room that knows pydicom and highdicom."""
