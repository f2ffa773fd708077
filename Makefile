## make demo   the pipeline on the digital phantom, with the viewer (ARGS="--frames 300 --no-browser")
## make test   every test that can run here, with a list of what was skipped and why (ARGS="tests/stream -k ring")
## make bench  engine, live path, transport and streams of this machine, under 10 minutes, into out/bench (ARGS=your_cine.dcm)
## make drill  every fault of the matrix in front of real clients, about 10 minutes (ARGS="--only engine --out drill.json")
## make fuzz   hostile bytes wherever bytes come in, guided by coverage, two minutes each (ARGS="--only dicom --seconds 600")
## make micro  the small parts of a frame's way, into micro.json (MICRO=micro-after.json); contrastream bench compare takes two
## make install-check   sdist and wheel, built and run in a clean environment of every Python from 3.11 to 3.13 that is here
## make lint   ruff and mypy; known vulnerabilities of the locked packages where pip-audit is there and can reach its data
## make sbom   build/sbom.cdx.json (CycloneDX) and build/SOUP.md from the locked packages; sets up pip-audit too
## make docs   the docs site, into build/docs; a warning or a dead link inside ends it (BUILDER=linkcheck looks at links to elsewhere)
## make screenshots   the site's pictures of the viewer, from real runs in headless Chromium
## make picture   the README's moving picture, from a real run

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SUPPLY := $(VENV)/supply
FUZZ   := $(VENV)/fuzz
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The pip that Python brings takes twice the time to read an index.
NEW_PIP := pip==26.3 --hash=sha256:f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13
# Where this is set, every process that a test starts compiles the program anew.
unexport PYTHONDONTWRITEBYTECODE
ARGS   ?=
MICRO  ?= micro.json
RESULTS ?= out/bench
BUILDER ?= html

# Tests that run the live path, which wants the cores for itself: one at a time. All others run beside them, three at a time, at
# the lowest priority (tests/halves.py).
LIVE := tests/bench/test_alone.py tests/bench/test_engine.py tests/bench/test_floor.py tests/bench/test_glass.py \
  tests/bench/test_live.py tests/bench/test_peers_run.py tests/bench/test_scale.py tests/bench/test_soak.py \
  tests/bench/test_transport.py tests/stream/display/test_keep.py tests/stream/display/test_live_path.py tests/stream/display/test_relay.py \
  tests/stream/display/test_shown_stage.py tests/stream/display/test_web.py tests/stream/display/test_window.py \
  tests/stream/record/test_recorder.py tests/stream/test_accounts.py tests/stream/test_admission.py \
  tests/stream/test_children.py tests/stream/test_clock_exchange.py \
  tests/stream/test_credit.py tests/stream/test_engine_host.py tests/stream/test_engine_side.py \
  tests/stream/test_faults.py tests/stream/test_gpu_trouble.py tests/stream/test_grab.py tests/stream/test_hostile.py \
  tests/stream/test_infer.py tests/stream/test_memory_clients.py tests/stream/test_patient.py tests/stream/test_pipeline.py \
  tests/stream/test_publish_subscribe.py tests/stream/test_rooms.py tests/stream/test_session.py \
  tests/stream/test_shutdown.py tests/stream/test_source_hang.py tests/stream/test_stages.py tests/stream/test_turns.py \
  tests/test_drill.py tests/test_privacy.py

.PHONY: demo test bench drill fuzz micro install-check lint sbom lock docs screenshots picture clean help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^## //p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "contrastream needs Python 3.11 to 3.13, got %d.%d; run: make PYTHON=python3.12 $(MAKECMDGOALS)" % v)'
	@$(PYTHON) -m venv $(VENV)
	@echo "$(NEW_PIP)" | $(PIP) install --require-hashes --only-binary :all: -r /dev/stdin

# The default install: locked by hash, without torch, CUDA or TensorRT.
$(VENV)/default.stamp: requirements.lock pyproject.toml | $(BIN)/python
	@echo "setting up $(VENV) (once)"
	@$(PIP) install --require-hashes --only-binary :all: -r requirements.lock
	@$(PIP) install --no-deps --editable .
	@touch $@

# What the tests need on top. requirements-test.lock is a constraint, not a list, because torch's own
# dependencies differ between its CPU and its CUDA build. Of its 19,000 modules few are ever imported: those are compiled then.
$(VENV)/test.stamp: requirements-test.lock $(VENV)/default.stamp
	@echo "setting up what the tests need (once)"
	@$(PIP) install --no-compile --constraint requirements-test.lock --editable ".[test]"
	@touch $@

demo: $(VENV)/default.stamp
	@$(BIN)/contrastream run phantom --web $(ARGS)

test: $(VENV)/test.stamp
	@sh tests/system-packages.sh
ifeq ($(strip $(ARGS)),)
	@$(BIN)/python tests/halves.py $(LIVE)
else
	@$(BIN)/python -m pytest $(ARGS)
endif

# Into $(RESULTS), which is not in the repository. Each workload is a command of its own; one that fails ends it.
bench: $(VENV)/default.stamp
	@mkdir -p $(RESULTS)
	@$(BIN)/contrastream bench engine --frames 500 --out $(RESULTS)/engine.json
	@$(BIN)/contrastream bench live $(ARGS) --rate 15 30 --out $(RESULTS)/live.json
	@$(BIN)/contrastream bench transport --frames 500 --out $(RESULTS)/transport.json
	@$(BIN)/contrastream bench scale $(ARGS) --frames 150 --out $(RESULTS)/scale.json
	@echo "reports, tables and pages are in $(RESULTS)"

# Not part of `make test` either: it breaks real pipelines for ten minutes and judges times.
drill: $(VENV)/test.stamp
	@PYTHONPATH=tests $(BIN)/python -m drill $(ARGS)

# Not part of `make test` either, which fuzzes for seconds with hypothesis. The fuzzer lies beside the environment, not in it.
$(FUZZ)/tools.stamp: | $(BIN)/python
	@$(BIN)/python -m pip --disable-pip-version-check --quiet install --no-deps --only-binary :all: --target $(FUZZ) \
	  "atheris==3.0.0; python_version < '3.12'" "atheris==3.1.0; python_version >= '3.12'"
	@touch $@

fuzz: $(VENV)/test.stamp $(FUZZ)/tools.stamp
	@PYTHONPATH=$(FUZZ):tests $(BIN)/python -m fuzz $(ARGS)

# Not part of `make test`: its files are not collected, and nothing here passes or fails by a time. The type checks of
# the tests would be measured too, hence other options.
micro: $(VENV)/test.stamp
	@$(BIN)/python -m pytest -o addopts="--import-mode=importlib" tests/bench/micro/micro_*.py \
	  --benchmark-json=$(MICRO) --benchmark-save-data --benchmark-columns=min,median,stddev,rounds $(ARGS)

# Not part of `make test` either: half a minute for each Python, two at a time.
install-check: $(VENV)/test.stamp
	@$(BIN)/python -m pytest -n 2 tests/install/check_install.py $(ARGS)

lint: $(VENV)/test.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@sh tests/pip-audit.sh $(SUPPLY)/bin/pip-audit requirements.lock $(SUPPLY)/clean.stamp

# Tools of their own environment, since what they need is none of this program's business.
$(SUPPLY)/tools.stamp: | $(BIN)/python
	@$(BIN)/python -m venv $(SUPPLY)
	@$(SUPPLY)/bin/python -m pip --disable-pip-version-check --quiet install "cyclonedx-bom==7.5.0" "pip-audit==2.10.1"
	@touch $@

sbom: $(VENV)/default.stamp $(SUPPLY)/tools.stamp
	@mkdir -p build
	@$(SUPPLY)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON -o build/sbom.cdx.json requirements.lock
	@$(BIN)/python docs/soup.py requirements.lock > build/SOUP.md
	@echo "written: build/sbom.cdx.json, build/SOUP.md"

$(VENV)/docs.stamp: requirements-test.lock $(VENV)/default.stamp
	@$(PIP) install --constraint requirements-test.lock --editable ".[docs]"
	@touch $@

docs: $(VENV)/docs.stamp
	@$(BIN)/sphinx-build --fail-on-warning --nitpicky --keep-going --fresh-env --quiet --builder $(BUILDER) docs build/docs
	@echo "written: build/docs/index.html"

screenshots: $(VENV)/test.stamp
	@$(BIN)/python docs/screenshots.py

picture: $(VENV)/default.stamp
	@$(BIN)/python docs/moving_picture.py

lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header -q pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --no-header -q pyproject.toml --extra test -c requirements.lock -o requirements-test.lock

clean:
	rm -rf $(VENV)
