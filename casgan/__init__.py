"""The network and how it is taught.

Map of the room:

    presets.py     the presets: one architecture, several widths and scales
    config.py      training settings, standard library only
    layers.py      what the networks are built of
    networks.py    E_BG, M, decoder, heads; blend and clamp
    losses.py      every term of teaching, with its formula
    training_networks.py  E_Vess, G_BG, and one pass through everything
    discriminators.py     D_X, D_Y, D_Sem; adversarial.py: their half of a step
    methods/       the methods that CAS-GAN is compared with, behind one small interface
    data.py        paired phantom pictures, augmentation
    archive.py     what lies in a site's folder: runs, patients; archive_files.py reads one file at a time
    runs.py        a run at training size, in its field (field.py) and its own grey levels
    domains.py     contrast-free or filled, by vessel area and by a person's table
    split.py       train and test by patient
    unpaired.py    frames of both domains, their batches
    lessons.py     what a run learns from, by its settings
    train.py       one loop: contrastream train
    stage.py       what the stages share; paired_stages.py: warm start, companions; cas_gan_stage.py: unpaired
    schedule.py    learning rates, ramps, the chance of each step
    processes.py   devices, processes, precision; device.py: a GPU, where there is one
    training_log.py       losses on disk and on the terminal; sample_grid.py: how far it is, as a picture
    shortcut.py    does M predict vessels, or read them?
    segmenter.py   the vessel U-Net: the semantic loss looks through one, another judges, a third sees a filled frame in its
                   company; segmenters/ holds the last two; segmenter_teaching.py: one step of theirs
    masked_pictures.py    what a segmenter learns from; phantom_moments.py: filled frames in their company
    vessel_metrics.py     Dice, clDice, centrelines, connectivity, border
    picture_metrics.py    background left alone, darkness, the lattice in the spectrum
    frechet.py     distances between sets of pictures on the judge's features
    steadiness.py  the shift test, and from frame to frame
    baseline.py    the mean tree in the heart's outline
    adapt.py       M taught on one patient; patient_lessons.py: on what; patient_masks.py: whose vessels; patient_file.py: on
                   disk; patient_weights.py: read without torch; patient_phantom.py, roadmap.py: what it is judged by;
                   mending.py: vessels removed, and decoys
    checkpoint.py  a run on disk
    errors.py      what can be wrong with it
"""
