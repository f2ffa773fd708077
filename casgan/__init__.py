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
    segmenter.py   the vessel U-Net: the semantic loss looks through one, another judges; segmenters/ holds the judge
    masked_pictures.py    what a segmenter learns from
    vessel_metrics.py     Dice, clDice, centrelines, connectivity, border
    picture_metrics.py    background left alone, darkness, the lattice in the spectrum
    frechet.py     distances between sets of pictures on the judge's features
    steadiness.py  the shift test, and from frame to frame
    baseline.py    the mean tree in the heart's outline
    checkpoint.py  a run on disk
    errors.py      what can be wrong with it
"""
