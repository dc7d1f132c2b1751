"""The truth about every instance and delivery: tables, transactions, leases, queries."""
