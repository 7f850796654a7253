/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "suites.h"

START_TEST(levels)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    static const char *const wrong[] = {"", "Error", "warning", "info ", "4", "none"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        enum log_level level = LOG_LEVEL_DEBUG;
        ck_assert_int_eq(log_level_parse(names[i], &level), 0);
        ck_assert_uint_eq(level, i);
        ck_assert_str_eq(log_level_name(level), names[i]);
        log_set_level(level);
        ck_assert_uint_eq(log_get_level(), level);
    }
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        enum log_level level = LOG_LEVEL_WARN;
        ck_assert_int_eq(log_level_parse(wrong[i], &level), -EINVAL);
        ck_assert_uint_eq(level, LOG_LEVEL_WARN);
    }
}
END_TEST

/* Standard error goes into a pipe; what is in it is read without waiting. */
static int captured = -1;

static void capture(void)
{
    int fds[2];
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    ck_assert_int_ge(fcntl(fds[1], F_SETPIPE_SZ, 1 << 20), 1 << 20);
    ck_assert_int_eq(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    ck_assert_int_eq(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
    close(fds[1]);
    captured = fds[0];
}

static char *written(void)
{
    static char text[1 << 20];
    ssize_t n = read(captured, text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static const char *end_of(const char *text, size_t n)
{
    size_t len = strlen(text);
    return text + (len > n ? len - n : 0);
}

START_TEST(lines)
{
    unsetenv("JOURNAL_STREAM");
    capture();
    log_set_level(LOG_LEVEL_WARN);
    log_info("sub", "not this");
    ck_assert_str_eq(written(), "");
    errno = EXDEV;
    log_warn("sub", "%s of VM %d", "trouble", 7);
    int error = errno; /* which libcheck's assertions change */
    ck_assert_int_eq(error, EXDEV);
    int year, millis;
    char *line = written();
    ck_assert_int_eq(sscanf(line, "%4d-%*2d-%*2dT%*2d:%*2d:%*2d.%3d warn  sub: ", &year, &millis),
                     2);
    ck_assert_str_eq(end_of(line, 28), " warn  sub: trouble of VM 7\n");

    /* One event is one line, whatever its words hold. */
    log_error("sub", "%s", "a\nb\r\x1b[2J\x7f");
    line = written();
    ck_assert_ptr_nonnull(strstr(line, " error sub: a?b??[2J?\n"));
    ck_assert_ptr_eq(strchr(line, '\n'), line + strlen(line) - 1);
}
END_TEST

/* Nobody to write to is no reason to fail, nor to change the caller's errno. */
START_TEST(closed)
{
    close(STDERR_FILENO);
    errno = EXDEV;
    log_error("sub", "into the void");
    int error = errno;
    ck_assert_int_eq(error, EXDEV);
}
END_TEST

START_TEST(long_line)
{
    static char words[10000];
    capture();
    memset(words, 'w', sizeof words - 1);
    log_error("sub", "%s", words);
    char *line = written();
    ck_assert_uint_le(strlen(line), 2048);
    ck_assert_uint_ge(strlen(line), 2000);
    ck_assert_str_eq(end_of(line, 3), "ww\n");
}
END_TEST

START_TEST(journal)
{
    struct stat st;
    char stream[64];
    capture();
    ck_assert_int_eq(fstat(STDERR_FILENO, &st), 0);
    snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_set_level(LOG_LEVEL_DEBUG);
    log_error("s", "e");
    log_warn("s", "w");
    log_info("s", "i");
    log_debug("s", "d");
    ck_assert_str_eq(written(), "<3>s: e\n<4>s: w\n<6>s: i\n<7>s: d\n");
}
END_TEST

/* JOURNAL_STREAM is inherited by those whose standard error was led elsewhere. */
START_TEST(journal_of_somebody_else)
{
    capture();
    setenv("JOURNAL_STREAM", "1:1", 1);
    log_error("s", "e");
    ck_assert_int_ne(written()[0], '<');
}
END_TEST

enum {
    WRITERS = 4,
    LINES = 200,
};

static void *write_lines(void *letter)
{
    char words[65] = "";
    memset(words, *(const char *)letter, sizeof words - 1);
    for (int i = 0; i < LINES; i++)
        log_error("sub", "%s", words);
    return NULL;
}

START_TEST(lines_of_threads)
{
    pthread_t threads[WRITERS];
    char letters[WRITERS] = {'a', 'b', 'c', 'd'};
    size_t n = 0;
    capture();
    for (size_t i = 0; i < WRITERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, write_lines, &letters[i]), 0);
    for (size_t i = 0; i < WRITERS; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    char *rest = written();
    for (char *line; (line = strsep(&rest, "\n")) && *line; n++) {
        const char *words = strstr(line, "sub: ");
        ck_assert_ptr_nonnull(words);
        ck_assert_uint_eq(strspn(words + 5, (char[]){words[5], '\0'}), 64);
        ck_assert_uint_eq(strlen(words), 5 + 64);
    }
    ck_assert_uint_eq(n, WRITERS * LINES);
}
END_TEST

Suite *suite_log(void)
{
    Suite *suite = suite_create("log");
    TCase *tc = tcase_create("log");
    tcase_add_test(tc, levels);
    tcase_add_test(tc, lines);
    tcase_add_test(tc, closed);
    tcase_add_test(tc, long_line);
    tcase_add_test(tc, journal);
    tcase_add_test(tc, journal_of_somebody_else);
    tcase_add_test(tc, lines_of_threads);
    suite_add_tcase(suite, tc);
    return suite;
}
