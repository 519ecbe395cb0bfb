"""What storage is about, without I/O: rows, blocks and their bytes, series states, collapsing, aggregating."""
