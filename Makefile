# Revenant's build. `make run` starts a machine, `make test` proves it; both install what is missing first.
#
# Everything made lies below $(BUILD). A second build needs no network. `make help` lists the targets.

BUILD ?= build
PYTHON ?= python3
# No --output-sync: it would hold back what a machine says until the machine ends.
MAKEFLAGS += --jobs=$(shell nproc) --no-builtin-rules

VENV := $(BUILD)/venv
REVENANT := $(VENV)/bin/revenant
PYTEST := $(VENV)/bin/python -m pytest
IMAGE ?= $(BUILD)/machine.img
USERLAND := $(BUILD)/userland/micropython.elf
BOOT := $(BUILD)/boot/mbr.bin $(BUILD)/boot/loader.bin
EDITOR := $(BUILD)/host/store_editor
KERNEL := $(BUILD)/kernel.elf $(BUILD)/kernel.stripped.elf
KERNEL_SIZE_MAX := 458752

export REVENANT_BUILD := $(abspath $(BUILD))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build run test test-full crash-states fuzz mutate conformance bench lint clean userland FORCE

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

build: $(KERNEL) $(BOOT) $(USERLAND) $(EDITOR) $(REVENANT) ## Kernel, boot code, userland, and the command build/venv/bin/revenant

run: build ## Start the machine in build/machine.img (made if missing); Ctrl-A X leaves it
	$(REVENANT) run --near $(IMAGE)

test: build ## The whole suite, within ten minutes
	$(PYTEST) -n 2 -m "not slow" tests

test-full: build ## The suite with its slow tests
	$(PYTEST) -n 2 tests

# As the tests write it: what was compiled under one name for the folder is out of date under that name only.
HOST_OUT = $(shell realpath -m --relative-to=tests/host/native $(BUILD)/host)
HOST_TESTS = $(MAKE) --no-print-directory -C tests/host/native OUT=$(HOST_OUT) SOURCE=$(abspath $(BUILD)/src)
STATES ?= 1000000
SECOND ?= 100000
SEED ?= 1
crash-states: ## What power cuts leave of the host-built store: STATES, SECOND crashes, from SEED on
	$(HOST_TESTS) $(HOST_OUT)/crash_states
	$(BUILD)/host/crash_states --states $(STATES) --second $(SECOND) --window 1024 --seed $(SEED)

FUZZ_TIME_S ?= 600
fuzz: ## libFuzzer (clang) on the host-built store for FUZZ_TIME_S; what it finds is in build/host/fuzz
	$(HOST_TESTS) $(HOST_OUT)/fuzz_store
	@mkdir -p $(BUILD)/host/fuzz
	ASAN_OPTIONS=detect_leaks=0 $(BUILD)/host/fuzz_store -max_total_time=$(FUZZ_TIME_S) -timeout=30 -max_len=200 \
		-print_final_stats=1 -artifact_prefix=$(BUILD)/host/fuzz/failed- $(BUILD)/host/fuzz tests/corpus/store

mutate: build ## Each safeguard of the kernel left out alone: the tests must fail for every one (an hour)
	nice $(REVENANT) crashtest --mutate

UPSTREAM := $(VENV)/bin/python tests/upstream/run.py $(BUILD)/src/micropython --image $(BUILD)/conformance.img
MPY_CROSS := $(BUILD)/userland/mpy-cross/mpy-cross
conformance: build ## MicroPython's own tests: undisturbed, as machine code, its other runners, with kill -9 after and within
	rm -f $(BUILD)/conformance.img
	$(REVENANT) create $(BUILD)/conformance.img
	$(UPSTREAM) --results $(BUILD)/upstream
	$(UPSTREAM) --results $(BUILD)/upstream-native --native $(MPY_CROSS)
	$(subst run.py,others.py,$(UPSTREAM)) --results $(BUILD)/upstream-others --mpy-cross $(MPY_CROSS)
	$(UPSTREAM) --results $(BUILD)/upstream-killed --kill $(SEED)

bench: build ## The figures of the README
	$(REVENANT) bench all

lint: $(REVENANT) ## ruff and mypy
	$(VENV)/bin/ruff check tools tests userland/fetch_sources.py
	$(VENV)/bin/mypy tools/revenant

clean: ## Remove what was built; fetched sources, the environment and images stay
	rm -rf $(BUILD)/kernel $(BUILD)/boot $(BUILD)/userland $(BUILD)/host $(KERNEL) $(BUILD)/kernel.map

# --- what the host must have ---

$(BUILD)/.packages: tools/install_packages.sh
	@mkdir -p $(@D)
	@bash $<
	@touch $@

$(REVENANT): pyproject.toml | $(BUILD)/.packages
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

# --- kernel ---

CC := gcc
CFLAGS := -std=c17 -O2 -g -ffreestanding -fno-pic -mcmodel=kernel -mno-red-zone -mgeneral-regs-only -fno-stack-protector \
	-fno-asynchronous-unwind-tables -fno-omit-frame-pointer -Wall -Wextra -Werror -Ikernel
# The two files that compute in vector registers say so themselves.
$(BUILD)/kernel/lib/blake2b_wide.c.o: CFLAGS := $(filter-out -mgeneral-regs-only,$(CFLAGS)) -mavx2
$(BUILD)/kernel/lib/blake2b_page.c.o: CFLAGS := $(filter-out -mgeneral-regs-only,$(CFLAGS)) -mavx -mbmi2 -fomit-frame-pointer

# Fetched sources (userland/fetch_sources.py); of each, only what the kernel calls is linked.
MONOCYPHER := $(BUILD)/src/monocypher
ZSTD := $(BUILD)/src/zstd
MONOCYPHER_USED := crypto_eddsa_reduce crypto_eddsa_check_equation
$(BUILD)/kernel/lib/ed25519.c.o: CFLAGS += -isystem $(MONOCYPHER)
$(BUILD)/kernel/lib/zstd.c.o: CFLAGS += -isystem $(ZSTD)/lib -ffunction-sections -fdata-sections
$(BUILD)/kernel/lib/ed25519.c.o $(BUILD)/kernel/lib/zstd.c.o: $(BUILD)/src/.fetched
$(BUILD)/kernel/monocypher.o: $(BUILD)/src/.fetched Makefile
	@mkdir -p $(@D)
	@echo "  CC $(MONOCYPHER)/monocypher.c"
	@$(CC) $(CFLAGS) -ffunction-sections -fdata-sections -c -o $@.all $(MONOCYPHER)/monocypher.c
	@ld -r --gc-sections $(addprefix -u ,$(MONOCYPHER_USED)) -o $@ $@.all
$(BUILD)/kernel/zstd.o: $(BUILD)/kernel/lib/zstd.c.o
	@ld -r --gc-sections -u zstd_unpack -o $@ $<

KERNEL_SOURCES := $(sort $(shell find kernel -name '*.c' -o -name '*.asm'))
KERNEL_OBJECTS := $(filter-out %/zstd.c.o,$(KERNEL_SOURCES:%=$(BUILD)/%.o)) $(BUILD)/kernel/zstd.o $(BUILD)/kernel/monocypher.o
LIBGCC = $(shell $(CC) -print-libgcc-file-name)

$(BUILD)/kernel/%.c.o: kernel/%.c Makefile | $(BUILD)/.packages
	@mkdir -p $(@D)
	@echo "  CC $<"
	@$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

# nasm 2.16 leaves included files out of what it writes for make
$(BUILD)/kernel/%.asm.o: kernel/%.asm $(wildcard kernel/arch/x86_64/*.inc) Makefile | $(BUILD)/.packages
	@mkdir -p $(@D)
	@echo "  NASM $<"
	@nasm -f elf64 -g -F dwarf -Ikernel/ -I$(<D)/ -MD $(@:.o=.d) -MP -o $@ $<

$(BUILD)/kernel.elf: $(KERNEL_OBJECTS) linker.ld
	@echo "  LD $@"
	@ld -nostdlib -static -z max-page-size=4096 -z noexecstack --build-id=none -T linker.ld -Map $(BUILD)/kernel.map \
		-o $@ $(KERNEL_OBJECTS) $(LIBGCC)

$(BUILD)/kernel.stripped.elf: $(BUILD)/kernel.elf
	@objcopy --strip-all $< $@
	@test $$(stat -c %s $@) -le $(KERNEL_SIZE_MAX) || { echo "$@ is larger than $(KERNEL_SIZE_MAX) bytes" >&2; exit 1; }

# --- the kernel's store over image files, for the command (tools/editor/README.md) ---

EDITOR_SOURCES := tools/editor/editor.c $(wildcard kernel/store/*.c) $(addprefix kernel/lib/,blake2b.c format.c page.c)
$(EDITOR): $(EDITOR_SOURCES) $(wildcard kernel/store/*.h kernel/lib/*.h) Makefile | $(BUILD)/.packages
	@mkdir -p $(@D)
	@echo "  CC $@"
	@$(CC) -std=gnu17 -O2 -g -Wall -Wextra -Werror -Ikernel -o $@ $(EDITOR_SOURCES)

# --- boot ---

$(BUILD)/boot/%.bin: boot/%.asm $(wildcard boot/*.inc) Makefile | $(BUILD)/.packages
	@mkdir -p $(@D)
	@echo "  NASM $<"
	@nasm -f bin -Iboot/ -MD $(@:.bin=.d) -MP -o $@ $<

-include $(KERNEL_OBJECTS:.o=.d) $(BUILD)/kernel/lib/zstd.c.d $(BOOT:.bin=.d)

# --- userland: its own Makefile knows its dependencies ---

$(BUILD)/src/.fetched: userland/fetch_sources.py | $(REVENANT)
	$(VENV)/bin/python $< $(BUILD)
	@touch $@

userland: $(USERLAND)
$(USERLAND): FORCE | $(BUILD)/src/.fetched
	@mkdir -p $(@D)
	+@$(MAKE) --no-print-directory -C userland BUILD=$(abspath $(BUILD)/userland) \
		SRC=$(abspath $(BUILD)/src/micropython) PYTHON=$(abspath $(VENV)/bin/python)
