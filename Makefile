# Each target is one line of plain commands, for people without make to read off.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: lab test notebooks experiments bench lint superlink supernode run blank slides \
	run-sheets kit assignment minutes picture publish-links site

lab: .venv/installed
	$(BIN)/jupyter lab $(ARGS) notebooks/00_why_federated_learning.ipynb

# All of it, or with LESSON=03 what concerns that lesson.
test: .venv/complete lint
	$(BIN)/python -m pytest -n 4 --nbval tests notebooks $(if $(LESSON),--lesson $(LESSON)) $(ARGS)

notebooks: .venv/complete
	$(BIN)/python notebooks/tools/build.py $(ARGS)

# What lessons 08 to 10 measured with 20 seeds: ARGS="08" or ARGS="08 name" for a part.
experiments: .venv/complete
	$(BIN)/python notebooks/tools/experiments.py $(ARGS)

bench: .venv/complete
	$(BIN)/python tests/bench.py $(ARGS)

# The README's picture, taken of a lesson.
picture: .venv/complete
	$(BIN)/python tests/picture.py

# For teachers: notebooks/teaching/INSTRUCTOR.md
blank: .venv/installed
	$(BIN)/python notebooks/tools/blank.py $(ARGS)

slides: .venv/complete
	$(BIN)/python notebooks/tools/slides.py $(ARGS)

run-sheets: .venv/complete
	$(BIN)/python notebooks/tools/run_sheets.py $(ARGS)

kit: .venv/complete
	$(BIN)/python notebooks/tools/kit.py $(ARGS)

assignment: .venv/complete
	$(BIN)/python notebooks/tools/assignment.py $(LESSON) $(ARGS)

minutes: .venv/complete
	$(BIN)/python notebooks/tools/minutes.py $(ARGS)

# Whoever publishes the course stamps its address and release into all links.
publish-links: .venv/complete
	$(BIN)/python notebooks/tools/publish_links.py --repo "$(REPO)" --tag "$(TAG)"

# A website of what is stored, in build/site: it runs nothing.
site: .venv/complete
	$(BIN)/python -m sphinx -q -E -W --keep-going -b html -d build/doctrees -c notebooks/tools/website . build/site

# A federation of a whole room: notebooks/teaching/classroom.md
superlink: .venv/installed
	$(BIN)/python -m course_utils.classroom superlink $(ARGS)

supernode: .venv/installed
	$(BIN)/python -m course_utils.classroom supernode $(JOIN) $(if $(findstring command,$(origin NAME)),--name "$$NAME")

run: .venv/installed
	$(BIN)/python -m course_utils.classroom run $(ARGS)

lint: .venv/complete
	$(BIN)/ruff check . && $(BIN)/ruff format --check course_utils tests notebooks/tools

# Made once, and again only when the list of dependencies changes: what a learner needs,
# with the small build of torch where there is no GPU,
.venv/installed: pyproject.toml requirements.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'This Python is older than 3.11: take another, as in make lab PYTHON=python3.12')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install "uv>=0.13.5"
	$(BIN)/uv pip install -p $(BIN)/python --torch-backend=auto torch torchvision || echo "No build of torch made for this machine can be had: pip takes the one on PyPI."
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

# and what changes and checks the course.
.venv/complete: .venv/installed
	$(BIN)/python -m pip install -e ".[lab,dev]"
	touch $@
