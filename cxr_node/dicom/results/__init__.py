"""One module for each kind of result object, and what all of them share."""
