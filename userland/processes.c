/*
 * userland/processes.c: other Pythons: spawn and fork them, wait for them, end them, send and receive; and the life of
 * a spawned one.
 *
 * Promise: every wait ends for Ctrl-C, a resume's callbacks and the others as all waits do (console.c); a process that
 * ends by an exception leaves the end of its traceback where processes() shows it.
 * Called by: Python programs through modrevenant.c; main.c for a process that was spawned.
 */
#include <string.h>

#include "py/builtin.h"
#include "py/compile.h"
#include "py/mperrno.h"
#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stream.h"

#include "codec.h"
#include "modrevenant.h"
#include "syscall.h"
#include "thread.h"

bool port_is_child;

NORETURN static void raise_error(long result) {
    switch (result) {
        case ERR_NOPROC:
            mp_raise_OSError(MP_ESRCH);
        case ERR_NOMEM:
            mp_raise_OSError(MP_EAGAIN);
        case ERR_NOSYS:
            mp_raise_msg(&mp_type_OSError, MP_ERROR_TEXT("this image was made without a template of processes"));
        default:
            mp_raise_ValueError(MP_ERROR_TEXT("the machine does not take it"));
    }
}

static long checked(long result) {
    if (result < 0) {
        raise_error(result);
    }
    return result;
}

/* timeout_ms: None for ever. */
static uint64_t deadline_of(mp_obj_t timeout_ms) {
    return timeout_ms == mp_const_none ? WAIT_FOREVER : port_deadline_ms(mp_obj_get_int_truncated(timeout_ms));
}

/* Until something happens or the deadline, which is an OSError then. */
static void wait_or_raise(uint64_t deadline_ns) {
    if (port_mono_ns() >= deadline_ns) {
        mp_raise_OSError(MP_ETIMEDOUT);
    }
    port_thread_wait(deadline_ns);
    mp_handle_pending(true);
}

/* --- send and receive --- */

static mp_obj_t revenant_send(size_t n_args, const mp_obj_t *args) {
    mp_uint_t id = mp_obj_get_int_truncated(args[0]);
    uint64_t deadline_ns = deadline_of(n_args > 2 ? args[2] : mp_const_none);
    vstr_t bytes;
    vstr_init(&bytes, 64);
    codec_encode(&bytes, args[1]);
    if (bytes.len > MESSAGE_SIZE_MAX) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("a message has at most %d bytes"), MESSAGE_SIZE_MAX);
    }
    long result;
    while ((result = sys_send(id, bytes.buf, bytes.len)) == ERR_AGAIN) {
        wait_or_raise(deadline_ns);
    }
    checked(result);
    vstr_clear(&bytes);
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(revenant_send_obj, 2, 3, revenant_send);

/* The message that waits, its header in front. */
static vstr_t message_take(uint64_t deadline_ns) {
    struct message_header header;
    long result;
    while ((result = sys_receive(&header, sizeof header)) == ERR_AGAIN) {
        wait_or_raise(deadline_ns);
    }
    checked(result);
    vstr_t bytes;
    vstr_init_len(&bytes, sizeof header + header.size);
    memcpy(bytes.buf, &header, sizeof header);
    if (header.size > 0) { /* else it is taken already */
        checked(sys_receive(bytes.buf, bytes.len));
    }
    return bytes;
}

static mp_obj_t revenant_receive(size_t n_args, const mp_obj_t *args) {
    vstr_t bytes = message_take(deadline_of(n_args > 0 ? args[0] : mp_const_none));
    struct message_header header;
    memcpy(&header, bytes.buf, sizeof header);
    mp_obj_t items[] = {
        mp_obj_new_int_from_uint(header.sender),
        codec_decode((const byte *)bytes.buf + sizeof header, header.size),
    };
    vstr_clear(&bytes);
    return mp_obj_new_tuple(2, items);
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(revenant_receive_obj, 0, 1, revenant_receive);

/* --- Poll: for select and asyncio --- */

typedef struct {
    mp_obj_base_t base;
    mp_uint_t id; /* 0: this process */
} poll_obj_t;

static mp_obj_t poll_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 0, 1, false);
    poll_obj_t *self = mp_obj_malloc(poll_obj_t, type);
    self->id = n_args > 0 ? mp_obj_get_int_truncated(args[0]) : 0;
    return MP_OBJ_FROM_PTR(self);
}

static mp_uint_t poll_ioctl(mp_obj_t self_in, mp_uint_t request, uintptr_t flags, int *error) {
    if (request != MP_STREAM_POLL) {
        *error = MP_EINVAL;
        return MP_STREAM_ERROR;
    }
    long bits = sys_poll(((poll_obj_t *)MP_OBJ_TO_PTR(self_in))->id);
    if (bits < 0) {
        return flags & (MP_STREAM_POLL_RD | MP_STREAM_POLL_WR); /* gone: whoever asks for it learns so */
    }
    return flags & ((bits & (POLL_MESSAGE | POLL_ENDED) ? MP_STREAM_POLL_RD : 0) |
        (bits & (POLL_ROOM | POLL_ENDED) ? MP_STREAM_POLL_WR : 0));
}

static const mp_stream_p_t poll_stream = { .ioctl = poll_ioctl };

MP_DEFINE_CONST_OBJ_TYPE(
    revenant_poll_type,
    MP_QSTR_Poll,
    MP_TYPE_FLAG_NONE,
    make_new, poll_make_new,
    protocol, &poll_stream
    );

/* --- look, wait, kill --- */

static const qstr process_fields[] = {
    MP_QSTR_id, MP_QSTR_parent, MP_QSTR_name, MP_QSTR_state, MP_QSTR_status, MP_QSTR_error,
    MP_QSTR_pages, MP_QSTR_memory, MP_QSTR_inbox,
};

static mp_obj_t process_entry(const struct process_info *info) {
    bool ended = info->state == PROCESS_INFO_ENDED;
    mp_obj_t items[] = {
        mp_obj_new_int_from_uint(info->id),
        mp_obj_new_int_from_uint(info->parent),
        mp_obj_new_str_from_cstr(info->name),
        MP_OBJ_NEW_QSTR(ended ? MP_QSTR_ended : MP_QSTR_running),
        ended ? mp_obj_new_int_from_ll(info->exit_status) : mp_const_none,
        info->last_words[0] != 0 ? mp_obj_new_str_from_cstr(info->last_words) : mp_const_none,
        mp_obj_new_int_from_ull(info->pages),
        mp_obj_new_int_from_ull(port_heap_size(info->page_limit)),
        mp_obj_new_int_from_ull(info->inbox_bytes),
    };
    return mp_obj_new_attrtuple(process_fields, MP_ARRAY_SIZE(items), items);
}

/* This process and those below it, oldest first. */
static mp_obj_t revenant_processes(void) {
    struct process_info info;
    mp_obj_t list = mp_obj_new_list(0, NULL);
    uint64_t last = 0;
    while (checked(sys_process(&info, last)) > 0) {
        mp_obj_list_append(list, process_entry(&info));
        last = info.id;
    }
    return list;
}
MP_DEFINE_CONST_FUN_OBJ_0(revenant_processes_obj, revenant_processes);

static mp_obj_t revenant_process_id(void) {
    struct process_info info;
    checked(sys_process(&info, PROCESS_SELF));
    return mp_obj_new_int_from_uint(info.id);
}
MP_DEFINE_CONST_FUN_OBJ_0(revenant_process_id_obj, revenant_process_id);

static mp_obj_t revenant_parent_id(void) {
    struct process_info info;
    checked(sys_process(&info, PROCESS_SELF));
    return mp_obj_new_int_from_uint(info.parent);
}
MP_DEFINE_CONST_FUN_OBJ_0(revenant_parent_id_obj, revenant_parent_id);

/* Of a process below this one; OSError ESRCH of any other. */
static void info_of(mp_uint_t id, struct process_info *info) {
    if (id == 0 || id > UINT32_MAX || checked(sys_process(info, id - 1)) == 0 || info->id != id) {
        mp_raise_OSError(MP_ESRCH);
    }
}

static mp_obj_t revenant_wait(size_t n_args, const mp_obj_t *args) {
    mp_uint_t id = mp_obj_get_int_truncated(args[0]);
    uint64_t deadline_ns = deadline_of(n_args > 1 ? args[1] : mp_const_none);
    struct process_info info;
    for (info_of(id, &info); info.state != PROCESS_INFO_ENDED; info_of(id, &info)) {
        wait_or_raise(deadline_ns);
    }
    return mp_obj_new_int_from_ll(info.exit_status);
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(revenant_wait_obj, 1, 2, revenant_wait);

static mp_obj_t revenant_kill(mp_obj_t id) {
    port_console_flush();
    checked(sys_kill(mp_obj_get_int_truncated(id)));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_1(revenant_kill_obj, revenant_kill);

/* --- spawn and fork --- */

/* A module is spawned as the text of its file; a frozen one by its name. */
static mp_obj_t source_of_module(mp_obj_t module) {
    mp_obj_t file_name[2];
    mp_load_method_maybe(module, MP_QSTR___file__, file_name);
    mp_import_stat_t kind = MP_IMPORT_STAT_NO_EXIST;
    if (file_name[0] != MP_OBJ_NULL) {
        kind = mp_import_stat(mp_obj_str_get_str(file_name[0]));
    }
    if (kind != MP_IMPORT_STAT_FILE) {
        vstr_t text;
        vstr_init(&text, 32);
        vstr_printf(&text, "import %s", mp_obj_str_get_str(mp_load_attr(module, MP_QSTR___name__)));
        return mp_obj_new_str_from_vstr(&text);
    }
    mp_obj_t file = mp_call_function_1(MP_OBJ_FROM_PTR(&mp_builtin_open_obj), file_name[0]);
    mp_obj_t text = mp_call_function_0(mp_load_attr(file, MP_QSTR_read));
    mp_stream_close(file);
    return text;
}

static void request_name(struct spawn_request *request, mp_obj_t name) {
    size_t length;
    const char *text = mp_obj_str_get_data(name, &length);
    if (length == 0 || length >= sizeof request->name || memchr(text, 0, length) != NULL) {
        mp_raise_ValueError(MP_ERROR_TEXT("a name has 1 to 63 bytes"));
    }
    memcpy(request->name, text, length);
}

static mp_obj_t revenant_spawn(size_t n_args, const mp_obj_t *pos_args, mp_map_t *kw_args) {
    enum { ARG_source, ARG_name, ARG_memory, ARG_args, ARG_quiet };
    static const mp_arg_t allowed[] = {
        { MP_QSTR_source, MP_ARG_REQUIRED | MP_ARG_OBJ, { .u_rom_obj = MP_ROM_NONE } },
        { MP_QSTR_name, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_NONE } },
        { MP_QSTR_memory, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_NONE } },
        { MP_QSTR_args, MP_ARG_OBJ, { .u_rom_obj = MP_ROM_PTR(&mp_const_empty_tuple_obj) } },
        { MP_QSTR_quiet, MP_ARG_BOOL, { .u_bool = false } },
    };
    mp_arg_val_t args[MP_ARRAY_SIZE(allowed)];
    mp_arg_parse_all(n_args, pos_args, kw_args, MP_ARRAY_SIZE(allowed), allowed, args);
    mp_obj_t source = args[ARG_source].u_obj, name = args[ARG_name].u_obj;
    bool is_module = mp_obj_is_type(source, &mp_type_module);
    if (name == mp_const_none) {
        name = is_module ? mp_load_attr(source, MP_QSTR___name__) : MP_OBJ_NEW_QSTR(MP_QSTR_spawned);
    }
    struct spawn_request request = { .flags = args[ARG_quiet].u_bool ? SPAWN_QUIET : 0 };
    request_name(&request, name);
    if (args[ARG_memory].u_obj != mp_const_none) {
        request.memory_size = mp_obj_get_int_truncated(args[ARG_memory].u_obj);
        if (request.memory_size < PORT_MEMORY_SIZE_MIN) {
            mp_raise_ValueError(MP_ERROR_TEXT("a process needs 1 MiB"));
        }
    }
    if (!is_module && !mp_obj_is_str(source)) {
        mp_raise_TypeError(MP_ERROR_TEXT("source text or module needed"));
    }
    mp_obj_t list = mp_call_function_1(MP_OBJ_FROM_PTR(&mp_type_list), args[ARG_args].u_obj);
    mp_obj_t start[] = { name, is_module ? source_of_module(source) : source, list };
    vstr_t bytes;
    vstr_init(&bytes, 256);
    vstr_add_strn(&bytes, (const char *)&request, sizeof request);
    codec_encode(&bytes, mp_obj_new_tuple(MP_ARRAY_SIZE(start), start));
    if (bytes.len > sizeof request + INBOX_SIZE - sizeof(struct message_header)) {
        mp_raise_ValueError(MP_ERROR_TEXT("source and args have more than 65528 bytes: send some of it later"));
    }
    port_console_flush();
    long id = checked(sys_spawn(bytes.buf, bytes.len));
    vstr_clear(&bytes);
    return mp_obj_new_int(id);
}
MP_DEFINE_CONST_FUN_OBJ_KW(revenant_spawn_obj, 1, revenant_spawn);

/* The id of the child, or 0 in the child. */
static mp_obj_t revenant_fork(void) {
    port_console_flush();
    long id = checked(sys_fork());
    if (id == 0) {
        port_is_child = true;
        port_thread_forked();
        port_console_forget_input();
        port_random_reseed();
    }
    return mp_obj_new_int(id);
}
MP_DEFINE_CONST_FUN_OBJ_0(revenant_fork_obj, revenant_fork);

/* --- the end of a child --- */

#define LAST_WORDS_SIZE 503 /* what the kernel keeps */

static struct {
    size_t size;
    char byte[LAST_WORDS_SIZE];
} last_words;

/* Keeps the end: the innermost frames and the exception. */
static void last_words_print(void *self, const char *text, size_t size) {
    (void)self;
    if (size > LAST_WORDS_SIZE) {
        text += size - LAST_WORDS_SIZE;
        size = LAST_WORDS_SIZE;
    }
    size_t kept = MIN(last_words.size, LAST_WORDS_SIZE - size);
    memmove(last_words.byte, last_words.byte + last_words.size - kept, kept);
    memcpy(last_words.byte + kept, text, size);
    last_words.size = kept + size;
}

static int status_of_exit(mp_obj_t exception) {
    mp_obj_t value = mp_obj_exception_get_value(exception);
    mp_int_t status = 1;
    if (value == mp_const_none) {
        return 0;
    }
    return mp_obj_get_int_maybe(value, &status) ? (int)status : 1;
}

/* What sys.atexit was given, once; an exception in it is printed and changes nothing. */
void port_atexit_run(void) {
    mp_obj_t function = MP_STATE_VM(sys_exitfunc);
    MP_STATE_VM(sys_exitfunc) = mp_const_none;
    nlr_buf_t nlr;
    if (!mp_obj_is_callable(function)) {
        return;
    }
    if (nlr_push(&nlr) == 0) {
        mp_call_function_0(function);
        nlr_pop();
    } else {
        mp_obj_print_exception(&mp_plat_print, MP_OBJ_FROM_PTR(nlr.ret_val));
    }
}

NORETURN void port_child_end(mp_obj_t exception) {
    int status = 0;
    if (exception != MP_OBJ_NULL) {
        mp_obj_t type = MP_OBJ_FROM_PTR(mp_obj_get_type(exception));
        if (mp_obj_is_subclass_fast(type, MP_OBJ_FROM_PTR(&mp_type_SystemExit))) {
            status = status_of_exit(exception);
        } else {
            const mp_print_t print = { NULL, last_words_print };
            mp_obj_print_exception(&print, exception);
            status = 1;
        }
    }
    port_atexit_run();
    port_console_flush();
    sys_exit(status, last_words.byte, last_words.size);
    for (;;) {
    }
}

/* After each program that was run at the prompt: a forked one does not go back to it. */
void port_program_ended(void *exception) {
    if (port_is_child) {
        port_child_end(exception == NULL ? MP_OBJ_NULL : MP_OBJ_FROM_PTR(exception));
    }
}

/* --- the life of a spawned one --- */

static void child_arguments(mp_obj_t name, mp_obj_t args) {
    size_t count;
    mp_obj_t *items;
    mp_obj_list_append(mp_sys_argv, name);
    mp_obj_get_array(args, &count, &items);
    for (size_t i = 0; i < count; i++) {
        mp_obj_list_append(mp_sys_argv, items[i]);
    }
}

static void child_program(void) {
    vstr_t bytes = message_take(WAIT_FOREVER);
    mp_obj_t *start;
    mp_obj_t value = codec_decode((const byte *)bytes.buf + sizeof(struct message_header),
        bytes.len - sizeof(struct message_header));
    mp_obj_get_array_fixed_n(value, 3, &start);
    child_arguments(start[0], start[2]);
    size_t size;
    const char *source = mp_obj_str_get_data(start[1], &size);
    mp_lexer_t *lexer = mp_lexer_new_from_str_len(mp_obj_str_get_qstr(start[0]), source, size, 0);
    qstr source_name = lexer->source_name;
    mp_parse_tree_t tree = mp_parse(lexer, MP_PARSE_FILE_INPUT);
    vstr_clear(&bytes);
    mp_call_function_0(mp_compile(&tree, source_name, false));
    mp_handle_pending(true);
}

NORETURN void port_child_run(void) {
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        child_program();
        nlr_pop();
        port_child_end(MP_OBJ_NULL);
    }
    mp_obj_t type = MP_OBJ_FROM_PTR(mp_obj_get_type(MP_OBJ_FROM_PTR(nlr.ret_val)));
    if (!mp_obj_is_subclass_fast(type, MP_OBJ_FROM_PTR(&mp_type_SystemExit))) {
        mp_obj_print_exception(&mp_plat_print, MP_OBJ_FROM_PTR(nlr.ret_val));
    }
    port_child_end(MP_OBJ_FROM_PTR(nlr.ret_val));
}

/* Before the heap: how much of it there is. */
void port_child_begin(void) {
    struct process_info info;
    port_is_child = true;
    if (sys_process(&info, PROCESS_SELF) == sizeof info) {
        port_heap_limit = port_heap_end_set(info.page_limit);
    }
}
