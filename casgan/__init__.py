"""The network and how it is taught.

Map of the room:

    presets.py     the presets: one architecture, several widths and scales
    config.py      training settings, standard library only
    layers.py      what the networks are built of
    networks.py    E_BG, M, decoder, heads; blend and clamp
    losses.py      the terms of the first teacher
    data.py        paired phantom pictures, augmentation
    archive.py     what lies in a site's folder: runs, patients; archive_files.py reads one file at a time
    runs.py        a run at training size, in its field (field.py) and its own grey levels
    domains.py     contrast-free or filled, by vessel area and by a person's table
    split.py       train and test by patient
    unpaired.py    frames of both domains, their batches
    train.py       one loop: python -m casgan.train --out out/train
    metrics.py     placement and background on patients with known truth
    checkpoint.py  a run on disk
    errors.py      what can be wrong with it
"""
