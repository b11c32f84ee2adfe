"""What ``longreel doctor`` looks at: small checks in a table, none of which can end the command."""
