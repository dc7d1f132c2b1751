"""What tests, demo and bench share: a recording PACS, a sending SCU, drawn radiographs, a node on loopback."""
