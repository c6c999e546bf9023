/*
 * tests/host/native/report.c: report.h. Everything goes to stdout, and out at once: the process does not end in order.
 */
#include "report.h"
#include "ram.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static unsigned limit_s;

_Noreturn void fail(const char *template, ...) {
    va_list arguments;
    va_start(arguments, template);
    say_where();
    vprintf(template, arguments);
    printf("\n");
    va_end(arguments);
    fflush(stdout);
    _exit(1);
}

static void stalled(int signal) {
    (void)signal;
    fail("nothing has ended for %u s", limit_s);
}

void report_stalls(unsigned stall_s) {
    limit_s = stall_s;
    signal(SIGALRM, stalled);
    report_alive();
}

void report_alive(void) { alarm(limit_s); }

#ifdef __SANITIZE_ADDRESS__
void __asan_on_error(void);
void __asan_on_error(void) {
    say_where();
    fflush(stdout);
}
#endif
