"""Labelled radiographs, recipes and profile folders."""
