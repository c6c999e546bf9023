/*
 * kernel/drivers/clock.h: time since power-on, wall time, and one timer.
 *
 * Promise: clock_ns never goes back and is within 1 % at once, refined later (against the HPET or the PIT); the timer
 * interrupts no earlier than asked.
 * Called by: main.c, proc, pager. Context: any, interrupts off.
 */
#ifndef DRIVERS_CLOCK_H
#define DRIVERS_CLOCK_H

#include <stdint.h>

int clock_init(void (*on_timer)(void)); /* at most ~1 ms of calibration */
uint64_t clock_ns(void);                /* since clock_init, monotonic */
void clock_wall_not_before(uint64_t wall_ns);
uint64_t clock_ns_per_cycle(void);      /* of the TSC, times 2 to the 32 */
uint64_t clock_wall_ns(void);           /* since 1970, from the RTC once plus clock_ns */
void clock_timer_arm(uint64_t deadline_ns); /* of clock_ns; replaces the one before; UINT64_MAX: off */

#endif
