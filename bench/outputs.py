"""What a measurement leaves behind: beside report.json its samples, a Markdown table and a page."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.markdown import markdown
from bench.page import page
from bench.samples import Samples, load_samples, samples_path, save_samples
from bench.summaries import parts
from calib.whole_files import write_whole


class Outputs:
    """The files of one report; whether they can be written is found out here, before anything is measured.

    Args:
        out: The report's JSON; None writes nothing.

    Raises:
        BenchError: Its folder takes no file.
    """

    def __init__(self, out: Path | None) -> None:
        self._out = out
        if out is None:
            return
        if out.suffix != ".json":
            raise BenchError(f"--out must end in .json, got {out.name}; the other files take its name")
        try:
            with tempfile.TemporaryFile(dir=out.parent):
                pass
        except OSError as error:
            raise BenchError(
                f"--out needs a folder that takes files, got {out.parent}: {error.strerror}; choose another --out"
            ) from error
        if out.is_dir():
            raise BenchError(f"--out must be a file, got the folder {out}; choose another --out")

    def write(self, report: dict[str, Any], samples: list[Samples] | None = None) -> list[Path]:
        """Write all of them, each whole or not at all, the JSON last.

        Args:
            report: The report; with `runs`, one measurement for each.
            samples: What each measurement keeps, in the same order; without them the page has no plots of them and the
                report cannot be compared.

        Returns:
            The files.

        Raises:
            BenchError: One cannot be written, or a measurement comes without its samples.
        """
        if self._out is None:
            return []
        if samples is not None and len(samples) != len(parts(report)):
            raise ValueError(f"needed samples of {len(parts(report))} measurements, got {len(samples)}")
        written = []
        if samples is not None:
            written.append(samples_path(self._out))
            save_samples(written[0], samples)
        texts = {
            self._out.with_suffix(".md"): markdown(report),
            self._out.with_suffix(".html"): page(report, samples or [Samples() for _ in parts(report)]),
            self._out: json.dumps(report, indent=2, default=str) + "\n",
        }
        for path, text in texts.items():
            write_text(path, text)
        return [*written, *texts]


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        BenchError: It cannot be written.
    """
    try:
        write_whole({path: text.encode()})
    except OSError as error:
        raise BenchError(f"needed to write {path}, got: {error.strerror}; choose another --out") from error


def read_report(path: Path) -> dict[str, Any]:
    """Read a report.

    Raises:
        BenchError: It is missing, no JSON, or no report of `contrastream bench`.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchError(
            f"needed a report, got {path}: {error.strerror}; run: contrastream bench live"
        ) from error
    except ValueError as error:
        raise BenchError(f"needed a report in JSON, got {path}: {error}; give the .json of --out") from error
    if not isinstance(report, dict) or not (isinstance(report.get("schema"), str) or "benchmarks" in report):
        raise BenchError(
            f"needed a report of contrastream bench, got {path} without a schema; give its --out"
        )
    return report


def main(arguments: list[str]) -> int:
    """`python -m bench.outputs REPORT.json`: write the table and the page again from the report and its samples."""
    if len(arguments) != 1:
        print("usage: python -m bench.outputs REPORT.json", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    try:
        report = read_report(path)
        kept = samples_path(path)
        samples = load_samples(kept) if kept.exists() else [Samples() for _ in parts(report)]
        write_text(path.with_suffix(".md"), markdown(report))
        write_text(path.with_suffix(".html"), page(report, samples))
    except BenchError as error:
        print(f"contrastream: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
