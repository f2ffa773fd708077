"""The `contrastream` command: the front door. It sees every room and opens a door only when it is asked to."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from bench.config import BenchConfig, DoctorConfig
from bench.evaluate_config import EvaluateConfig
from calib.config import CalibConfig
from casgan.config import TrainConfig
from engines.config import BuildConfig, ExportConfig
from stream.config import (
    AuditConfig,
    KeysConfig,
    PatientConfig,
    RecordConfig,
    ReplayConfig,
    RunConfig,
    SynthesizeConfig,
    ViewConfig,
)

Shell = Literal["bash", "zsh", "fish"]


@dataclass(frozen=True)
class CompletionConfig:
    """Print a script by which a shell completes this command: subcommands, options, their values, files.

    bash: put `eval "$(contrastream completion bash)"` into ~/.bashrc.
    zsh: `contrastream completion zsh > DIR/_contrastream`, DIR being in $fpath.
    fish: `contrastream completion fish > ~/.config/fish/completions/contrastream.fish`.
    """

    shell: tyro.conf.Positional[Shell]
    """The shell that reads the script."""


Command = (
    Annotated[RunConfig, tyro.conf.subcommand("run")]
    | Annotated[ReplayConfig, tyro.conf.subcommand("replay")]
    | Annotated[PatientConfig, tyro.conf.subcommand("patient")]
    | Annotated[ViewConfig, tyro.conf.subcommand("view")]
    | Annotated[RecordConfig, tyro.conf.subcommand("record")]
    | Annotated[TrainConfig, tyro.conf.subcommand("train")]
    | Annotated[EvaluateConfig, tyro.conf.subcommand("evaluate")]
    | Annotated[SynthesizeConfig, tyro.conf.subcommand("synthesize")]
    | Annotated[ExportConfig, tyro.conf.subcommand("export")]
    | Annotated[BuildConfig, tyro.conf.subcommand("build")]
    | Annotated[CalibConfig, tyro.conf.subcommand("calib")]
    | Annotated[BenchConfig, tyro.conf.subcommand("bench")]
    | Annotated[KeysConfig, tyro.conf.subcommand("keys")]
    | Annotated[DoctorConfig, tyro.conf.subcommand("doctor")]
    | Annotated[AuditConfig, tyro.conf.subcommand("audit")]
    | Annotated[CompletionConfig, tyro.conf.subcommand("completion")]
)

# What a command may find missing, by the extra that brings it (pyproject.toml).
EXTRAS = {
    "train": ("torch", "onnx", "onnxscript", "monai", "lightning_fabric", "safetensors", "skimage"),
    "ort": ("onnxruntime",),
    "fid": ("torch_fidelity", "torchvision"),
    "slicer": ("fastcrc",),
    "ray": ("ray",),
}

DESCRIPTION = """A virtual contrast agent for live fluoroscopy: X-ray frames in, synthesized angiograms out.
Research tool, not a medical device."""

# tyro's scripts offer nothing where an argument is no option and no fixed word: there a source, a model or a report may
# stand, so files are offered.
OR_FILES: dict[Shell, str] = {
    "bash": """
_contrastream_or_files() {
    _tyro_contrastream "$@"
    if [[ -z "${COMPREPLY[*]}" ]]; then
        COMPREPLY=()
    elif [[ "${COMP_WORDS[COMP_CWORD-1]}" == -* ]]; then
        compopt -o filenames
    fi
}
complete -o default -F _contrastream_or_files contrastream
""",
    "zsh": """
(( compstate[nmatches] )) || _files
""",
    "fish": """
complete --command contrastream --force-files \\
    --condition 'test (count (commandline -opc)) -gt 1; and string match -qr "^[^-]" -- (commandline -ct)'
""",
}


def completion(shell: Shell) -> int:
    """Print the script by which a shell completes this command."""
    script = io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        parse(["--tyro-print-completion", shell])
    # The table of options is one line of Python, and a line break within a help text would become a choice of its own.
    lines = (
        re.sub(r"\\+n", " ", line) if line.startswith("COMPLETION_SPEC = ") else line
        for line in script.getvalue().splitlines()
    )
    print("\n".join(lines) + "\n" + OR_FILES[shell], end="")
    return 0


def dispatch(config: object) -> int:
    """Open the one room that a command needs."""
    match config:
        case RunConfig():
            from stream.session import run

            return run(config)
        case ReplayConfig():
            from stream.session import replay

            return replay(config)
        case PatientConfig():
            from stream.patient_command import patient

            return patient(config)
        case ViewConfig():
            from stream.display.view import view

            return view(config)
        case RecordConfig():
            from stream.record.recorder import record

            return record(config)
        case TrainConfig():
            from casgan.train import train_command

            return train_command(config)
        case EvaluateConfig():
            from bench.evaluate import evaluate

            return evaluate(config)
        case SynthesizeConfig():
            from stream.synthesize import synthesize

            return synthesize(config)
        case ExportConfig():
            from engines.export import export

            return export(config)
        case BuildConfig():
            from engines.build import build

            return build(config)
        case CalibConfig():
            from stream.calibrate import calibrate

            return calibrate(config.step)
        case BenchConfig():
            from bench.workloads import bench

            return bench(config.workload)
        case KeysConfig():
            from stream.keys_command import keys

            return keys(config.step)
        case DoctorConfig():
            from bench.doctor import doctor

            return doctor(config)
        case AuditConfig():
            from stream.audit_verify import audit

            return audit(config.step)
        case CompletionConfig():
            return completion(config.shell)
    raise TypeError(f"no handler for {type(config).__name__}")


def trust_if_asked(config: object) -> None:
    """--trust-model: remember the command's model before anything opens it, and say its hash.

    Raises:
        EngineError: There is no such model, or it cannot be remembered.
    """
    asked: Any = getattr(config, "workload", None) or getattr(config, "step", None) or config
    if getattr(asked, "trust_model", False) and asked.model is not None:
        from engines.trust import trust_model

        print(f"contrastream: {trust_model(asked.model)}", file=sys.stderr)


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """The sentence for a package that an extra would have brought; None where none of them holds it."""
    package = (error.name or "").partition(".")[0]
    for extra, packages in EXTRAS.items():
        if package in packages:
            return f"this command needs the package {package}, which is not installed; run: pip install -e '.[{extra}]'"
    return None


def parse(arguments: Sequence[str] | None = None) -> object:
    """A command line as the dataclass of its command; `--help` and what is no command end the process, as tyro does it."""
    return tyro.cli(
        Command,
        prog="contrastream",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 done, 1 a fault of ours, 2 bad input or usage, with one line on stderr: needed, got, what to do.
    """
    config = parse(arguments)
    from bench.errors import BenchError
    from calib.errors import CalibrationError
    from casgan.errors import CheckpointError, DataError, TrainingError
    from engines.errors import EngineError
    from stream.errors import PipelineError, StreamError

    try:
        trust_if_asked(config)
        return dispatch(config)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Who read our output has gone (`| head`); what Python still holds for it must go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        if (said := missing_extra(error)) is None:
            raise
        print(f"contrastream: {said}", file=sys.stderr)
        return 2
    except PipelineError as error:
        print(f"contrastream: {error}", file=sys.stderr)
        return 1
    except (
        StreamError,
        EngineError,
        CalibrationError,
        CheckpointError,
        DataError,
        TrainingError,
        BenchError,
        ValueError,
    ) as error:
        print(f"contrastream: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
