"""`python -m cxr_node`: the same as the console script."""

from cxr_node.cli.node import main

if __name__ == "__main__":
    main()
