"""The command `patient`: a running pipeline takes an adaptation over, or goes back to the general model."""

import os
from pathlib import Path

from calib.patient_facts import open_patient
from casgan.patient_weights import read_patient
from stream.command_door import command
from stream.config import PatientConfig
from stream.endpoint import parse_endpoint
from stream.errors import EngineRefused

OFF = "off"


def patient(config: PatientConfig) -> int:
    """`contrastream patient`.

    Raises:
        CheckpointError: The file is no adaptation.
        EndpointError: No pipeline of this user runs there.
        EngineRefused: It cannot take the adaptation; what it drew with before goes on.
    """
    endpoint = parse_endpoint(config.endpoint)
    if config.what == OFF:
        done, message = command(endpoint.control, {"command": "patient", "do": "off"})
    else:
        path = Path(config.what)
        descriptor = open_patient(path)
        try:
            # So that a broken file is named here; the pipeline reads it once more.
            facts = read_patient(descriptor, path.name).facts
            print(f"{facts.describe()}: being made ready beside what draws now", flush=True)
            done, message = command(endpoint.control, {"command": "patient", "do": "on"}, (descriptor,))
        finally:
            os.close(descriptor)
    if not done:
        raise EngineRefused(message)
    print(message)
    return 0
