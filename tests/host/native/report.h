/*
 * tests/host/native/report.h: how a native program fails: it says where, why, and ends with status 1.
 *
 * Promise: fail (ram.h), a stall of stall_s seconds since the last report_alive, and a sanitizer's finding all say
 * where first.
 * Used by: crash_states.c, damage.c. (A fuzzer's target aborts instead: fuzz_store.c.)
 */
#ifndef REPORT_H
#define REPORT_H

void report_stalls(unsigned stall_s); /* from now on */
void report_alive(void);              /* something has ended: the clock begins anew */

/* Supplied by the program: prints which case it is and how to repeat it, whole lines. */
void say_where(void);

#endif
