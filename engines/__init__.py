"""One network, several runtimes: the engine contract, its backends, the graph they run, and their parity."""
