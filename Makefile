# make demo        the main job on real images, from an empty checkout to the report
# make test        the tests, as CI runs them
# make test-slow   the tests of minutes
# make lint        ruff and mypy
PYTHON ?= python3
RUN := runs/demo
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow lint clean

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/.installed
	.venv/bin/nas run examples/digits.toml --run-dir $(RUN)

test: .venv/.installed
	.venv/bin/python -m pytest -n 2 --dist worksteal

test-slow: .venv/.installed
	.venv/bin/python -m pytest -n 2 --dist worksteal -m slow

lint: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy --strict -p search_spaces -p latency_models -p nas

clean:
	rm -rf .venv build dist *.egg-info
