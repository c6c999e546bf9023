/*
 * kernel/drivers/clock.c: time from the TSC, measured against the HPET or else the PIT; one timer on the APIC
 * (clock.h).
 *
 * Promise: clock_ns is linear between refinements and continuous at them: only the rate changes. The timer's handler
 * runs when clock_ns has reached the deadline, not before.
 * Called by: main.c, proc, pager. Context: interrupts off. Sources: IA-PC HPET 1.0a, Intel 8254, Motorola MC146818.
 */
#include "drivers/clock.h"

#include "arch/x86_64/arch.h"
#include "lib/error.h"
#include "lib/lib.h"

#define HPET_PHYSICAL 0xfed00000ull
#define HPET_PERIOD_FS_MAX 100000000u /* 2.3.4 */
#define HPET_COUNTER_64 (1u << 13)
#define NS_PER_S 1000000000ull
#define FS_PER_NS 1000000u

enum {
    HPET_CAPABILITIES = 0x00 / 4, /* in words of 32 bits */
    HPET_PERIOD = 0x04 / 4,
    HPET_CONFIGURATION = 0x10 / 4,
    HPET_COUNTER = 0xf0 / 4,
    HPET_ENABLE = 1,
    HPET_SIZE = 0x400,

    PIT_CHANNEL_2 = 0x42,
    PIT_COMMAND = 0x43,
    PIT_COMMAND_CHANNEL_2_ONE_SHOT = 0xb0,
    PIT_HZ = 1193182,
    PIT_WARM_UP_TICKS = 20,
    PIT_WINDOW_TICKS = 1193,
    SPEAKER_PORT = 0x61, /* bit 0: gate of channel 2, bit 1: speaker, bit 5: output of channel 2 */
    SPEAKER_GATE = 1,
    SPEAKER_ON = 2,
    SPEAKER_OUTPUT = 0x20,
    PORT_ABSENT = 0xff,

    WINDOW_NS = 500000, /* of calibration */
    WINDOW_COUNT_MAX = 4,
    CALIBRATION_PRECISION = 200,
    REFINEMENT_PRECISION = 2000,
    SAMPLE_COUNT = 4,
    APIC_DIVIDE = 16,
    APIC_TICKS_MAX = 0x7fffffff, /* farther deadlines go in pieces */
    REFINEMENT_COUNT = 2,

    CMOS_INDEX = 0x70,
    CMOS_DATA = 0x71,
    RTC_READ_COUNT_MAX = 1000,
    RTC_UPDATING = 0x80,
    RTC_BINARY = 4,
    RTC_24_HOURS = 2,
    RTC_AFTERNOON = 0x80,
};
#define WINDOW_CYCLES_MAX 100000000ull /* no CPU counts so many in the window */
#define CYCLES_MIN_PER_MS 50000ull     /* slower is no TSC but a broken reference */

struct sample {
    uint64_t cycles, hpet; /* at one moment */
    uint64_t width_cycles; /* which is known to that precision */
};

static const uint64_t refine_after_ns[REFINEMENT_COUNT] = {50000000, 1000000000};

static volatile uint32_t *hpet; /* NULL: none that can be trusted */
static uint32_t hpet_period_fs;
static struct sample first;
static unsigned refined_count;

static uint64_t base_cycles, base_ns;
static uint64_t ns_per_cycle; /* 32.32 */
static uint64_t ticks_per_ns; /* of the APIC timer, 32.32 */
static uint64_t last_ns;
static uint64_t wall_base_ns;

static void (*on_timer)(void);
static unsigned timer_vector;
static uint64_t timer_deadline_ns = UINT64_MAX;

/* a * b / c without losing the upper half; saturates. (128-bit division would need libgcc.) */
static uint64_t multiply_divide(uint64_t a, uint64_t b, uint64_t c) {
    unsigned __int128 product = (unsigned __int128)a * b;
    uint64_t high = (uint64_t)(product >> 64), low = (uint64_t)product, quotient, remainder;
    if (high >= c)
        return UINT64_MAX;
    __asm__("divq %4" : "=a"(quotient), "=d"(remainder) : "a"(low), "d"(high), "r"(c) : "cc");
    return quotient;
}

static uint64_t multiply_fixed(uint64_t value, uint64_t factor) {
    return (uint64_t)((unsigned __int128)value * factor >> 32);
}

/* --- reference clocks --- */

static void find_hpet(void) {
    volatile uint32_t *registers = mmio_map(HPET_PHYSICAL, HPET_SIZE);
    uint32_t capabilities = registers[HPET_CAPABILITIES];
    uint32_t period_fs = registers[HPET_PERIOD];
    uint32_t vendor = capabilities >> 16;
    int is_sane = period_fs > 0 && period_fs <= HPET_PERIOD_FS_MAX && vendor != 0 && vendor != 0xffff;
    if (!is_sane || !(capabilities & HPET_COUNTER_64))
        return;
    hpet_period_fs = period_fs;
    registers[HPET_CONFIGURATION] |= HPET_ENABLE;
    hpet = registers;
}

static uint64_t read_hpet(void) {
    uint32_t high, low;
    do {
        high = hpet[HPET_COUNTER + 1];
        low = hpet[HPET_COUNTER];
    } while (high != hpet[HPET_COUNTER + 1]);
    return (uint64_t)high << 32 | low;
}

/* Of a few tries the narrowest, so that an interruption by a hypervisor does not count. */
static struct sample take_sample(void) {
    struct sample best = {.width_cycles = UINT64_MAX};
    for (unsigned i = 0; i < SAMPLE_COUNT; i++) {
        uint64_t before = arch_cycles();
        uint64_t ticks = read_hpet();
        uint64_t width = arch_cycles() - before;
        if (width < best.width_cycles)
            best = (struct sample){.cycles = before + width / 2, .hpet = ticks, .width_cycles = width};
    }
    return best;
}

/* Whether the cycles between two samples are known to one part in `precision`. */
static int is_precise(const struct sample *from, const struct sample *to, uint64_t precision) {
    return (from->width_cycles + to->width_cycles) / 2 <= (to->cycles - from->cycles) / precision;
}

static uint64_t sample_distance_ns(const struct sample *from, const struct sample *to) {
    return multiply_divide(to->hpet - from->hpet, hpet_period_fs, FS_PER_NS);
}

/* --- calibration --- */

struct window {
    uint64_t ns, cycles, apic_ticks;
};

static int measure_once_by_hpet(struct window *window) {
    first = take_sample();
    uint32_t apic_start = apic_timer_current();
    struct sample now;
    do {
        now.cycles = arch_cycles();
        if (now.cycles - first.cycles > WINDOW_CYCLES_MAX)
            return -E_IO; /* the counter stands still */
        now.hpet = read_hpet();
    } while (sample_distance_ns(&first, &now) < WINDOW_NS);
    struct sample last = take_sample();
    window->apic_ticks = apic_start - apic_timer_current();
    window->ns = sample_distance_ns(&first, &last);
    window->cycles = last.cycles - first.cycles;
    return is_precise(&first, &last, CALIBRATION_PRECISION) ? 0 : -E_AGAIN;
}

/* On a very busy host the last try is taken as it is. */
static int measure_by_hpet(struct window *window) {
    int status = -E_AGAIN;
    for (unsigned i = 0; i < WINDOW_COUNT_MAX && status == -E_AGAIN; i++)
        status = measure_once_by_hpet(window);
    return status == -E_AGAIN ? 0 : status;
}

/* One-shot of channel 2, its output polled: cycles and APIC ticks that `ticks` of the PIT took. */
static int run_pit(uint16_t ticks, struct window *window) {
    arch_outb(PIT_COMMAND, PIT_COMMAND_CHANNEL_2_ONE_SHOT);
    arch_outb(PIT_CHANNEL_2, ticks & 0xff);
    uint32_t apic_start = apic_timer_current();
    arch_outb(PIT_CHANNEL_2, (uint8_t)(ticks >> 8)); /* starts to count */
    uint64_t start = arch_cycles(), now;
    do
        now = arch_cycles();
    while (!(arch_inb(SPEAKER_PORT) & SPEAKER_OUTPUT) && now - start < WINDOW_CYCLES_MAX);
    window->apic_ticks = apic_start - apic_timer_current();
    window->cycles = now - start;
    window->ns = ticks * NS_PER_S / PIT_HZ;
    return now - start < WINDOW_CYCLES_MAX ? 0 : -E_IO;
}

/* A short run first: cold caches, or an emulator's translation, took more than 1 % of the window. */
static int measure_by_pit(struct window *window) {
    uint8_t speaker = arch_inb(SPEAKER_PORT);
    if (speaker == PORT_ABSENT)
        return -E_NOENT;
    arch_outb(SPEAKER_PORT, (uint8_t)((speaker & ~SPEAKER_ON) | SPEAKER_GATE));
    int status = run_pit(PIT_WARM_UP_TICKS, window);
    return status < 0 ? status : run_pit(PIT_WINDOW_TICKS, window);
}

static int calibrate(void) {
    struct window window;
    apic_timer_set(APIC_DIVIDE, UINT32_MAX, timer_vector);
    find_hpet();
    int status = hpet ? measure_by_hpet(&window) : -E_NOENT;
    if (status < 0) {
        hpet = NULL;
        status = measure_by_pit(&window);
    }
    apic_timer_set(APIC_DIVIDE, 0, timer_vector);
    if (status < 0)
        return status;
    if (window.cycles < window.ns / 1000000 * CYCLES_MIN_PER_MS || window.cycles == 0 || window.apic_ticks == 0)
        return -E_RANGE;
    ns_per_cycle = multiply_divide(window.ns, 1ull << 32, window.cycles);
    ticks_per_ns = multiply_divide(window.apic_ticks, 1ull << 32, window.ns);
    return 0;
}

/* The longer the time since the first sample, the better the rate. */
static void refine(void) {
    if (!hpet || refined_count == REFINEMENT_COUNT || clock_ns() < refine_after_ns[refined_count])
        return;
    struct sample now = take_sample();
    if (!is_precise(&first, &now, REFINEMENT_PRECISION))
        return; /* disturbed: at the next interrupt */
    base_ns += multiply_fixed(now.cycles - base_cycles, ns_per_cycle);
    base_cycles = now.cycles;
    ns_per_cycle = multiply_divide(sample_distance_ns(&first, &now), 1ull << 32, now.cycles - first.cycles);
    refined_count++;
}

uint64_t clock_ns_per_cycle(void) { return ns_per_cycle; }

/* --- wall clock --- */

struct rtc_time {
    uint8_t second, minute, hour, day, month, year, century, format;
};

static uint8_t read_cmos(uint8_t index) {
    arch_outb(CMOS_INDEX, index);
    return arch_inb(CMOS_DATA);
}

static struct rtc_time read_rtc_once(void) {
    return (struct rtc_time){
        .second = read_cmos(0x00),
        .minute = read_cmos(0x02),
        .hour = read_cmos(0x04),
        .day = read_cmos(0x07),
        .month = read_cmos(0x08),
        .year = read_cmos(0x09),
        .century = read_cmos(0x32),
        .format = read_cmos(0x0b),
    };
}

/* Two equal readings outside of an update. */
static struct rtc_time read_rtc(void) {
    struct rtc_time time, again = {0};
    for (unsigned i = 0; i < RTC_READ_COUNT_MAX; i++) {
        if (read_cmos(0x0a) & RTC_UPDATING)
            continue;
        time = read_rtc_once();
        if (memcmp(&time, &again, sizeof time) == 0)
            break;
        again = time;
    }
    return again;
}

static unsigned decode(uint8_t value, int is_binary) {
    return is_binary ? value : (value >> 4) * 10u + (value & 15u);
}

/* Days from 1970-01-01 in the Gregorian calendar, years counted from March. */
static uint64_t days_since_1970(unsigned year, unsigned month, unsigned day) {
    unsigned y = month > 2 ? year : year - 1;
    unsigned days_before_month = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5;
    return 365ull * y + y / 4 - y / 100 + y / 400 + days_before_month + day - 1 - 719468;
}

static uint64_t rtc_ns(void) {
    struct rtc_time raw = read_rtc();
    int is_binary = raw.format & RTC_BINARY;
    unsigned century = decode(raw.century, is_binary), year = decode(raw.year, is_binary);
    unsigned month = decode(raw.month, is_binary), day = decode(raw.day, is_binary);
    unsigned hour = decode(raw.hour & 0x7f, is_binary), minute = decode(raw.minute, is_binary);
    unsigned second = decode(raw.second, is_binary);
    if (!(raw.format & RTC_24_HOURS))
        hour = hour % 12 + (raw.hour & RTC_AFTERNOON ? 12 : 0);
    year += 100 * (century >= 19 && century <= 22 ? century : 20);
    if (month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60 || year < 1970)
        return 0; /* an unset clock: 1970 */
    return (days_since_1970(year, month, day) * 86400 + hour * 3600 + minute * 60 + second) * NS_PER_S;
}

/* --- the timer --- */

static void set_hardware_timer(uint64_t now_ns) {
    uint64_t ticks = 1; /* past: as soon as possible */
    if (timer_deadline_ns > now_ns)
        ticks = multiply_fixed(timer_deadline_ns - now_ns, ticks_per_ns) + 1;
    apic_timer_set(APIC_DIVIDE, ticks < APIC_TICKS_MAX ? (uint32_t)ticks : APIC_TICKS_MAX, timer_vector);
}

void clock_timer_arm(uint64_t deadline_ns) {
    if (deadline_ns == timer_deadline_ns)
        return; /* saves an exit */
    timer_deadline_ns = deadline_ns;
    if (deadline_ns == UINT64_MAX)
        apic_timer_set(APIC_DIVIDE, 0, timer_vector);
    else
        set_hardware_timer(clock_ns());
}

static void on_interrupt(void *context) {
    (void)context;
    refine();
    if (timer_deadline_ns == UINT64_MAX)
        return; /* turned off while it was on its way */
    uint64_t now_ns = clock_ns();
    if (now_ns < timer_deadline_ns) {
        set_hardware_timer(now_ns); /* a piece of a far one, or the rates differ a little */
        return;
    }
    timer_deadline_ns = UINT64_MAX;
    on_timer();
}

/* --- clock.h --- */

uint64_t clock_ns(void) {
    uint64_t now_ns = base_ns + multiply_fixed(arch_cycles() - base_cycles, ns_per_cycle);
    if (now_ns > last_ns)
        last_ns = now_ns;
    return last_ns;
}

uint64_t clock_wall_ns(void) {
    return wall_base_ns + clock_ns();
}

/* The RTC counts whole seconds, cut off: what was said of the time before this start may be up to one ahead of it. */
void clock_wall_not_before(uint64_t wall_ns) {
    uint64_t now = clock_wall_ns();
    if (now < wall_ns && wall_ns - now <= NS_PER_S)
        wall_base_ns += wall_ns - now;
}

int clock_init(void (*timer_fn)(void)) {
    int vector = interrupt_alloc(on_interrupt, NULL);
    if (vector < 0)
        return vector;
    timer_vector = (unsigned)vector;
    on_timer = timer_fn;
    int status = calibrate();
    if (status < 0)
        return status;
    base_cycles = arch_cycles();
    wall_base_ns = rtc_ns();
    return 0;
}
