"""The network and how it is taught.

Map of the room:

    presets.py     the presets: one architecture, several widths and scales
    config.py      training settings, standard library only
    layers.py      what the networks are built of
    networks.py    E_BG, M, decoder, heads; blend and clamp
    losses.py      the terms of the first teacher
    data.py        paired phantom pictures, augmentation
    train.py       one loop: python -m casgan.train --out out/train
    metrics.py     placement and background on patients with known truth
    checkpoint.py  a run on disk
    errors.py      what can be wrong with it
"""
