"""What the numbers mean, and the digital phantom that stands in for a patient.

Map of the room:

    config.py              the room's settings, standard library only
    errors.py              its errors
    results.py             what each calibration step found, as a record keeps it
    record.py              a site's record: the steps' results, for which source and model, in one TOML file
    whole_files.py         files that are there whole or not at all
    record_text.py         dataclasses to TOML and back, checked by their annotations
    intensity.py           stored values to grey levels: tables, their inverses, landmarks
    intensity_site.py      a site's own table, measured from its frames
    intensity_words.py     what a person should know of it, in sentences
    polarity.py            whether thin structures are dark, as they are the right way round
    detector_response.py   linear or logarithmic, by the noise; values cut off or piled up
    table_motion.py        whether everything shifted
    filling.py             which frames are filled with contrast medium
    bolus.py               when it comes and goes in one run, by that run's own measure
    heart_phase.py         heartbeat and breath of each frame, from the pictures
    geometry.py            where the X-rays came through, and what else a record says of the geometry
    field.py               the field as corners and a circle, and its mask
    field_finder.py        finds it in a picture
    field_edges.py         where grey rises out of the dark along a profile
    field_dark.py          what is really dark, and its outline
    field_round.py         the circle that the outline lies on
    burned_in.py           text and logos that do not change over the frames
    spacing.py             how large a pixel is, from a header
    grid.py                the same, measured on a grid or step wedge
    precision.py           any engine against the reference on a site's frames, and whether int8 may be used
    clock.py               another host's clock against this one's, with bounds
    domain.py              is this frame like those the network was taught on: features, distance, threshold
    domain_site.py         the same for a site, from its own frames
    domain_changes.py      what tells a site's frames from the same ones inverted or enlarged
    patient_facts.py       what a patient's adaptation says of itself
    patient_gate.py        is this frame still of the projection that a patient was taught on
    phantom.py             one patient as a stream of frames with truth: `Phantom`, `training_pairs`
    phantom_view.py        patient coordinates, and how a C-arm projects them
    phantom_patient.py     who the patient is, and the pose of heart and diaphragm at a time
    phantom_heart.py       the heart as a body: heart coordinates to the patient's, and the outline it shows
    phantom_anatomy.py     chest, heart, diaphragm, catheter and collimator as the beam meets them
    phantom_coronary.py    the coronary tree in heart coordinates
    phantom_devices.py     sternal wires, pacemaker, ECG cables and guidewire
    phantom_detector.py    lag, quantum and electronic noise
    phantom_test.py        the phantom's test of itself: noise, edge, step wedge
    target.py              a target whose bar code tells frame number and time to a camera
    phantom_inlay.py       phantom vessels laid into real contrast-free pictures: `inlay`, `inlaid_pairs`
    phantom_rendering.py   tubes, silhouettes and texture as X-ray attenuation

Imports none of the other rooms.
"""
