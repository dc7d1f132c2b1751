"""The check that every result passes before it is stored, and `cxr-node verify`."""
