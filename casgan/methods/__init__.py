"""Methods that learn from unpaired frames: CAS-GAN's rivals behind one small interface, each from its paper.

Map of the folder:

    names.py       every method by name, its paper; standard library only
    method.py      the interface: networks, losses, what the discriminators are shown
    stage.py       one training step, the same for every rival; pool.py: pictures shown again later
    blocks.py      what their networks are built of; scales.py: discriminators at several scales
    derived.py     attention for methods that have none
    cyclegan.py  unit.py  munit.py  cut.py  attentiongan.py     one method each
    registry.py    from a name to networks

CAS-GAN itself is `casgan/networks.py`, `training_networks.py` and `cas_gan_stage.py`: the stage has this interface's
form and shares the adversarial half of its step (`casgan/adversarial.py`).
"""
