"""Many recordings synthesized offline: find.py, folder.py, loop.py for one, run.py for all, cluster.py over Ray."""
