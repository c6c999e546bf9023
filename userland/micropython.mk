# userland/micropython.mk: the port in MicroPython's own make language (docs/develop/porting.rst).
#
# The order counts: mkenv, then what selects parts of extmod, then py.mk, extmod.mk, our lists, mkrules.
# Called by: Makefile beside it, which sets BUILD and SRC.

include $(SRC)/py/mkenv.mk

QSTR_DEFS = qstrdefsport.h
FROZEN_MANIFEST = manifest.py
# The pinned source has no micropython-lib; the rules want a folder with a README.md.
MPY_LIB_DIR = include
MPY_TOOL_FLAGS = -mmpz-dig-size 32
MPY_CROSS_FLAGS = -march=x64

MICROPY_VFS_FAT = 1
MICROPY_VFS_LFS1 = 1
MICROPY_VFS_LFS2 = 1
MICROPY_ROM_TEXT_COMPRESSION ?= 0

include $(TOP)/py/py.mk
include $(TOP)/extmod/extmod.mk

INC += -I. -I.. -I$(TOP) -I$(BUILD) -I../kernel

CFLAGS += $(INC) -nostdinc -isystem include -isystem $(shell $(CC) -print-file-name=include)
CFLAGS += -std=gnu99 -O2 -g -DNDEBUG -Wall -Wextra -Werror -Wno-unused-parameter
CFLAGS += -ffreestanding -fbuiltin -fno-builtin-sin -fno-builtin-cos -fno-math-errno -fno-pic -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none
# toolchain/as says why: no SETcc into memory.
CFLAGS += -B$(CURDIR)/toolchain/ -ffixed-xmm15
CFLAGS += -ffunction-sections -fdata-sections
CFLAGS += -ffile-prefix-map=$(TOP)=micropython -ffile-prefix-map=$(CURDIR)=userland -ffile-prefix-map=$(BUILD)=build

LDFLAGS += -nostdlib -static -no-pie -Wl,-T,micropython.ld -Wl,--gc-sections -Wl,--build-id=none
LDFLAGS += -Wl,-z,noexecstack -Wl,-Map=$(BUILD)/micropython.map

SRC_C = \
	main.c \
	codec.c \
	collect.c \
	console.c \
	exec.c \
	files.c \
	heap.c \
	libc.c \
	modrevenant.c \
	processes.c \
	thread.c \

SRC_SHARED_C = \
	shared/readline/readline.c \
	shared/runtime/gchelper_generic.c \
	shared/runtime/interrupt_char.c \
	shared/runtime/pyexec.c \
	shared/runtime/stdout_helpers.c \
	shared/runtime/sys_stdio_mphal.c \
	shared/timeutils/timeutils.c \

SRC_QSTR += $(SRC_C) $(SRC_SHARED_C)
# Included by files of extmod, so that their new names are seen.
QSTR_GLOBAL_DEPENDENCIES += modmachine.c modos.c modtime.c

OBJ = $(PY_O)
OBJ += $(addprefix $(BUILD)/, $(SRC_C:.c=.o) $(SRC_SHARED_C:.c=.o))
OBJ += $(addprefix $(BUILD)/, $(SRC_LIB_LIBM_DBL_C:.c=.o)) # but for sqrt, which the CPU has

# A loop that copies bytes must not become a call of the function that it is the body of.
$(BUILD)/libc.o: CFLAGS += -fno-tree-loop-distribute-patterns -fno-builtin

# At the prompt and in input(), LF ends a line as CR does; whoever reads bytes (raw REPL, sys.stdin) gets them as they are.
$(BUILD)/shared/readline/readline.o: CFLAGS += -Dmp_hal_stdin_rx_chr=port_readline_rx_chr
# Of several threads, one has the line at a time.
$(BUILD)/shared/runtime/pyexec.o: CFLAGS += -Dreadline=port_readline

# gc.threshold() is the program's, not what collect.c sets meanwhile.
$(BUILD)/py/modgc.o: CFLAGS += -Dmp_obj_get_int=port_threshold_given -Dmp_obj_new_int=port_threshold_told

# Others' code, others' warnings.
$(BUILD)/lib/%.o: CFLAGS += -w

all: $(BUILD)/micropython.elf

# makemanifest.py looks at the age of frozen modules only; a name that the core has now must not be theirs any more.
$(BUILD)/frozen_content.c: $(BUILD)/frozen_outdated
$(BUILD)/frozen_outdated: $(HEADER_BUILD)/qstrdefs.generated.h
	$(Q)rm -f $(BUILD)/frozen_content.c
	$(Q)touch $@

$(OBJ): toolchain/as micropython.mk

$(BUILD)/micropython.elf: $(OBJ) micropython.ld
	$(ECHO) "LINK $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $(OBJ) -lgcc
	$(Q)! objdump -d --no-show-raw-insn $@ | grep -E '\s(set|rcl|rcr)[a-z]*\s+.*\(' || \
		{ echo "$@: flags read by an instruction that writes memory: see toolchain/as" >&2; exit 1; }
	$(Q)$(SIZE) $@

include $(TOP)/py/mkrules.mk
