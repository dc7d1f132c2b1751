"""The only room that knows pynetdicom, sockets, the spool and the ledger: receive, work, deliver."""
