/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Durations and sizes share one reader over a table of units, in integers throughout: a fraction is
 * multiplied by its unit before it is divided by its power of ten, so that exactness can be asked
 * for instead of hoped for.
 */
#include "values.h"

#include <limits.h>
#include <string.h>
#include <sys/un.h>

#include "clock.h"
#include "words.h"

enum {
    /* 10^18 times the largest unit fits 128 bits by far; no duration needs more decimals. */
    DECIMALS_MAX = 18,
    /* Longer than any VM's name, short enough that matching costs nothing. */
    GLOB_MAX_BYTES = 1024,
    /* A name may hold this many letters in Linux (LOGIN_NAME_MAX), its end included. */
    USER_MAX_BYTES = 255,
};

struct unit {
    const char *name;
    int64_t scale;
};

static const struct unit duration_units[] = {
    {"ns", 1},           {"us", NSEC_PER_USEC},    {"ms", NSEC_PER_MSEC},
    {"s", NSEC_PER_SEC}, {"m", 60 * NSEC_PER_SEC}, {"h", 3600 * NSEC_PER_SEC},
    {NULL, 0},
};

static const struct unit size_units[] = {
    {"B", 1},
    {"KiB", INT64_C(1) << 10},
    {"MiB", INT64_C(1) << 20},
    {"GiB", INT64_C(1) << 30},
    {"TiB", INT64_C(1) << 40},
    {NULL, 0},
};

/* What the two kinds of measured numbers are called in messages. */
struct measure {
    const char *noun;     /* "a duration" */
    const char *smallest; /* "nanoseconds" */
    const char *all_units;
    const struct unit *units;
};

static const struct measure durations = {
    .noun = "a duration",
    .smallest = "nanoseconds",
    .all_units = "ns, us, ms, s, m or h",
    .units = duration_units,
};

static const struct measure sizes = {
    .noun = "a size",
    .smallest = "bytes",
    .all_units = "B, KiB, MiB, GiB or TiB",
    .units = size_units,
};

/* The digits at *at as a number; moves *at behind them. False when they don't fit. */
static bool read_digits(const char **at, uint64_t *ret_value)
{
    uint64_t value = 0;
    bool fits = true;
    for (; **at >= '0' && **at <= '9'; (*at)++) {
        fits = fits && !__builtin_mul_overflow(value, UINT64_C(10), &value) &&
               !__builtin_add_overflow(value, (uint64_t)(**at - '0'), &value);
    }
    *ret_value = value;
    return fits;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* ".25" as 25 over 10^2, trailing zeros dropped. False when it has too many decimals. */
static bool read_fraction(const char **at, uint64_t *ret_digits, uint64_t *ret_power)
{
    const char *start = *at + 1, *end = start;
    while (is_digit(*end))
        end++;
    *at = end;
    while (end > start && end[-1] == '0')
        end--;
    *ret_digits = 0;
    *ret_power = 1;
    if (end - start > DECIMALS_MAX)
        return false;
    for (const char *p = start; p < end; p++) {
        *ret_digits = *ret_digits * 10 + (uint64_t)(*p - '0');
        *ret_power *= 10;
    }
    return true;
}

/*
 * 0.fraction of a unit in whole smallest ones: fraction * scale / power, where power is ten to the
 * number of its digits. Digit by digit from the last one, as the product may not fit in 64 bits: it
 * ends in as many zeros as power has when each step leaves no remainder. False where it does not.
 */
static bool scale_fraction(uint64_t fraction, uint64_t power, uint64_t scale, uint64_t *ret_part)
{
    uint64_t part = 0;
    for (; power > 1; power /= 10, fraction /= 10) {
        part += fraction % 10 * scale;
        if (part % 10 != 0)
            return false;
        part /= 10;
    }
    *ret_part = part;
    return true;
}

static int read_measure(const struct measure *m, const char *text, const char *example,
                        int64_t *ret_value, struct config_error *ret_reason)
{
    const char *at = text;
    uint64_t whole, fraction = 0, power = 1;
    bool exact = true;

    if (!is_digit(*at))
        return reason_set(ret_reason, "%s is not %s; write for example %s", quoted(text).text,
                          m->noun, example);
    bool fits = read_digits(&at, &whole);
    if (at[0] == '.' && is_digit(at[1]))
        exact = read_fraction(&at, &fraction, &power);
    if (*at == '\0')
        return reason_set(ret_reason, "%s has no unit; write for example %s", quoted(text).text,
                          example);

    const struct unit *unit = m->units;
    while (unit->name && strcmp(unit->name, at) != 0)
        unit++;
    if (!unit->name)
        return reason_set(ret_reason,
                          "%s is not %s: its unit would be %s; write one number and %s, "
                          "for example %s",
                          quoted(text).text, m->noun, quoted(at).text, m->all_units, example);

    uint64_t scale = (uint64_t)unit->scale, part, value;
    if (!exact || !scale_fraction(fraction, power, scale, &part))
        return reason_set(ret_reason, "%s is not a whole number of %s; write for example %s",
                          quoted(text).text, m->smallest, example);
    if (!fits || __builtin_mul_overflow(whole, scale, &value) ||
        __builtin_add_overflow(value, part, &value) || value > INT64_MAX) {
        (void)reason_set(ret_reason, "%s is too large; write for example %s", quoted(text).text,
                         example);
        return -ERANGE;
    }
    *ret_value = (int64_t)value;
    return 0;
}

int value_duration(const char *text, const char *example, int64_t *ret_ns,
                   struct config_error *ret_reason)
{
    return read_measure(&durations, text, example, ret_ns, ret_reason);
}

int config_parse_duration(const char *text, int64_t *ret_ns)
{
    struct config_error ignored;
    return value_duration(text, "100ms", ret_ns, &ignored);
}

int value_size(const char *text, const char *example, int64_t *ret_bytes,
               struct config_error *ret_reason)
{
    if (strcmp(text, "0") == 0) {
        *ret_bytes = 0;
        return 0;
    }
    return read_measure(&sizes, text, example, ret_bytes, ret_reason);
}

int value_count(const char *text, const char *example, int64_t *ret_count,
                struct config_error *ret_reason)
{
    const char *at = text;
    uint64_t value;
    bool fits = read_digits(&at, &value);

    if (at == text || *at != '\0')
        return reason_set(ret_reason, "%s is not a whole number; write for example %s",
                          quoted(text).text, example);
    if (text[0] == '0' && text[1] != '\0')
        return reason_set(ret_reason,
                          "%s begins with 0, which some read as octal; write for "
                          "example %s",
                          quoted(text).text, example);
    if (!fits || value > INT64_MAX) {
        (void)reason_set(ret_reason, "%s is too large; write for example %s", quoted(text).text,
                         example);
        return -ERANGE;
    }
    *ret_count = (int64_t)value;
    return 0;
}

/* `max`: the longest that the kernel takes, without the final NUL. */
static int check_path(const char *text, size_t max, const char *example,
                      struct config_error *ret_reason)
{
    if (text[0] != '/')
        return reason_set(ret_reason, "%s is not an absolute path; write for example %s",
                          quoted(text).text, example);
    if (strlen(text) > max)
        return reason_set(ret_reason, "%s has %zu bytes; write a path of at most %zu",
                          quoted(text).text, strlen(text), max);
    return 0;
}

int check_directory(const char *text, struct config_error *ret_reason)
{
    return check_path(text, PATH_MAX - 1, "/var/lib/kvmstatd", ret_reason);
}

int check_socket(const char *text, struct config_error *ret_reason)
{
    return check_path(text, sizeof((struct sockaddr_un *)NULL)->sun_path - 1,
                      "/run/kvmstatd/handoff.sock", ret_reason);
}

int check_optional_file(const char *text, struct config_error *ret_reason)
{
    if (text[0] == '\0')
        return 0;
    return check_path(text, PATH_MAX - 1, "/etc/kvmstatd/web.yaml, or \"\" for none", ret_reason);
}

int check_glob(const char *text, struct config_error *ret_reason)
{
    size_t len = strlen(text), backslashes = 0;
    while (backslashes < len && text[len - 1 - backslashes] == '\\')
        backslashes++;
    if (backslashes % 2 == 1)
        return reason_set(ret_reason,
                          "the glob %s ends in a lone \\, so it matches nothing; write \\\\ for a "
                          "backslash",
                          quoted(text).text);
    if (len > GLOB_MAX_BYTES)
        return reason_set(ret_reason, "the glob %s has %zu bytes; write at most %d",
                          quoted(text).text, len, GLOB_MAX_BYTES);
    return 0;
}

int check_stat_glob(const char *text, struct config_error *ret_reason)
{
    if (text[0] == '\0')
        return reason_set(ret_reason, "an empty glob matches no statistic; write for example "
                                      "\"halt_*\", or \"*\" for all");
    return check_glob(text, ret_reason);
}

/* Whether the user exists is asked when the socket opens: accounts may come after the file. */
int check_user(const char *text, struct config_error *ret_reason)
{
    size_t len = strlen(text), digits = strspn(text, "0123456789");
    if (len == 0 || len > USER_MAX_BYTES || strpbrk(text, ":/ \t") || text[0] == '-')
        return reason_set(ret_reason,
                          "%s cannot be a user; write a name or a uid, for example libvirt-qemu "
                          "or 107",
                          quoted(text).text);
    if (digits < len)
        return 0;
    const char *at = text;
    uint64_t uid;
    /* 2^32 - 1 is (uid_t)-1, which no process can have. */
    if (!read_digits(&at, &uid) || uid >= UINT32_MAX)
        return reason_set(ret_reason, "%s is too large for a uid; write 0 to 4294967294",
                          quoted(text).text);
    return 0;
}
