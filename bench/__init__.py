"""Frames per second and p99 latency, always with the machine they came from."""
