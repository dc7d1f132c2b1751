"""Jobs leased from the ledger, analysed in lanes, settled once."""
