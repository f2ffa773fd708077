"""Where frames come from: one file per kind of source, behind `open_source()` in source.py."""
