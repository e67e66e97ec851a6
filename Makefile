# The environment is made once and again when pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
NAPARI := build/napari-venv
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
.PHONY: demo test lint types docs tutorials links wheel wheel-check app-check napari-test clean

demo: $(VENV)/.installed
	$(BIN)/cascade demo --output_dir demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

lint: $(VENV)/.installed-test types
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/.installed-test links
	$(BIN)/mypy

docs: $(VENV)/.installed-docs links
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet -f docs/site/mkdocs.yml

tutorials: $(VENV)/.installed-test
	$(BIN)/python docs/tutorials/run.py

# pipelines/ and training/ install as cascade.pipelines and cascade.training: mypy and the documentation are shown them
# under these names.
links:
	@rm -rf build/types && mkdir -p build/types/cascade
	@ln -s $(CURDIR)/cascade/* $(CURDIR)/pipelines $(CURDIR)/training build/types/cascade

wheel: $(VENV)/.installed
	@rm -rf build/lib build/bdist.*
	$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps -w dist .

# The wheel alone, away from this folder, with what its core needs and none of its extras.
wheel-check: $(VENV)/.installed
	$(BIN)/python .ci/wheel_check.py

# The page of `cascade app` in a browser, which the machine has to have.
app-check: $(VENV)/.installed-test
	@if [ -n "$$(which chromium chromium-browser google-chrome)" ]; then \
		$(PIP) -e '.[app]' playwright && $(BIN)/python -m pytest tests/test_app.py; \
	else echo "app-check: skipped, there is no Chromium: apt-get install chromium"; fi

# The plugin, in an environment of its own that borrows this one's packages: napari changes what pytest does.
napari-test: $(NAPARI)/.installed
	cd napari && $(abspath $(NAPARI))/bin/python -m pytest
	$(NAPARI)/bin/python -m mypy --config-file napari/pyproject.toml

$(NAPARI)/.installed: $(VENV)/.installed-test napari/pyproject.toml napari/constraints.txt
	@echo "installing napari into $(NAPARI): a minute or two"
	@test -x $(NAPARI)/bin/python || $(BIN)/python -m venv $(NAPARI)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $(NAPARI)/borrowed
	@cp $(NAPARI)/borrowed "$$($(NAPARI)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
	@$(NAPARI)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -c napari/constraints.txt \
	  -e . -e './napari[test]'
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "installing into $(VENV): a few minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) torch
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "installing what the tests need"
	@$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@echo "installing what the documentation needs"
	@$(PIP) -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) demo build *.egg-info
