"""`python -m cxr_node`: the same as the console script."""

from cxr_node.cli.node import app

if __name__ == "__main__":
    app()
