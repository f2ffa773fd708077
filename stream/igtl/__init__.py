"""OpenIGTLink: frames to and from 3D Slicer, PLUS and whoever else speaks it."""
