# make demo   set up, draw a practice set, check it, train three folds, predict, report
# make test   set up, run the whole suite
# make reference  components.json and docs/components.md, from the tables
# make check  format, lint, strict types, tests: what a change must pass, and what CI runs

PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.installed
TF := $(BIN)/threefold
DEMO := demo

.PHONY: reference demo test browser check lint format types clean
.DELETE_ON_ERROR:

$(SETUP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "threefold needs Python 3.11 or newer; make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(SETUP)
	rm -rf $(DEMO)
	$(TF) sample $(DEMO)/practice --people 120 --seed 0
	$(TF) check $(DEMO)/practice
	$(TF) train recipes/demo.yaml --data $(DEMO)/practice --out $(DEMO)/run > $(DEMO)/oof.txt
	$(TF) predict $(DEMO)/practice/eval --model $(DEMO)/run --answers $(DEMO)/practice/eval/answers.csv > $(DEMO)/eval.txt
	$(TF) report $(DEMO)/run > /dev/null
	@echo
	@echo "out of fold, 120 drawn people:  $$(head -n 1 $(DEMO)/oof.txt)"
	@echo "eval, 80 other drawn people:    $$(head -n 1 $(DEMO)/eval.txt)"
	@echo "report:      $(DEMO)/run/report.html"
	@echo "submission:  $(DEMO)/run/submission.csv"

test: $(SETUP) browser
	-$(TF) assets yunet selfie mesh
	$(BIN)/pytest -n auto

browser:  # the page is tested in Debian's chromium; without it those tests skip and say so
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update \
	&& DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium chromium-driver >/dev/null; } \
	|| echo "no chromium and no way to install it: tests of the page will skip"

reference: $(SETUP)
	$(BIN)/python tools/reference.py

lint: $(SETUP)
	$(BIN)/ruff format --check src tests benchmarks examples tools
	$(BIN)/ruff check src tests benchmarks examples tools
	$(BIN)/lint-imports

format: $(SETUP)
	$(BIN)/ruff format src tests benchmarks examples tools
	$(BIN)/ruff check --fix src tests benchmarks examples tools

types: $(SETUP)
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(DEMO) .pytest_cache .mypy_cache .ruff_cache
