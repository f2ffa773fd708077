"""The network and how it is taught: presets, layers, losses, the training loop."""
