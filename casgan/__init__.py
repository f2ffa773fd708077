"""The network and how it is taught.

Map of the room:

    config.py      presets and training settings, standard library only
    networks.py    E_BG, M, decoder, heads; blend and clamp
    losses.py      the terms of the first teacher
    data.py        paired phantom pictures, augmentation
    train.py       one loop: python -m casgan.train --out out/train
    metrics.py     placement and background on patients with known truth
    checkpoint.py  a run on disk
    errors.py      what can be wrong with it
"""
