"""One target under atheris: `python -m fuzz.child NAME [libFuzzer's options] CORPUS`. Ends as libFuzzer does."""

import logging
import sys

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["stream", "calib", "fuzz"]):
    from fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until the time is over or something is found."""
    target = next(each for each in TARGETS if each.name == sys.argv[1])
    logging.disable(logging.CRITICAL)
    with atheris.instrument_imports(include=["stream", "calib", "fuzz"]):
        take = target.make()
        for (
            seed
        ) in target.seeds():  # loads what is imported late, and shows that the seeds themselves are sound
            take(seed)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], take)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
