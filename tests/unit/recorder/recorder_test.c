/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "bytes.h"
#include "dump_directory.h"
#include "dump_file.h"
#include "exit_status.h"
#include "suites.h"
#include "testing.h"

/* --- codec --- */

START_TEST(a_cell_takes_what_it_must)
{
    static struct codec_shape shape = {.data_bytes = 40 * 8, .n_cells = 40};
    uint64_t before[40] = {0}, now[40] = {0}, cells[40] = {0};
    uint8_t bytes[1024];
    shape.falls[0] = UINT64_C(1) << 1;
    now[0] = 8;            /* small: one byte */
    now[1] = -UINT64_C(3); /* it may fall: one byte */
    now[20] = 96401170;    /* a varint for the skip, four bytes */
    now[21] = 9;
    const uint8_t expected[] = {4, 0x07, 0x04, 0xfb, 0x03, 0x12, 0xf7, 0xbe, 0x05, 0x08, 9};
    uint8_t *end = codec_put_block(bytes, &shape, before, now);
    ck_assert_uint_eq((size_t)(end - bytes), sizeof expected);
    ck_assert_mem_eq(bytes, expected, sizeof expected);
    const uint8_t *at = bytes;
    ck_assert_int_eq(codec_get_block(&at, end, &shape, true, cells), 0);
    ck_assert_ptr_eq(at, end);
    ck_assert_mem_eq(cells, now, sizeof now);
    at = bytes;
    ck_assert_int_eq(codec_get_block(&at, end, &shape, false, cells), 0);
    ck_assert_mem_eq(cells, before, sizeof before);
}
END_TEST

START_TEST(a_block_that_does_not_move_takes_a_byte)
{
    static const struct codec_shape shape = {.data_bytes = 1120, .n_cells = 140};
    uint64_t block[140];
    uint8_t bytes[4096];
    memset(block, 7, sizeof block);
    ck_assert_ptr_eq(codec_put_block(bytes, &shape, block, block), bytes + 1);
    ck_assert_uint_eq(bytes[0], 0);
}
END_TEST

START_TEST(broken_blocks_are_refused)
{
    static const struct codec_shape shape = {.data_bytes = 16, .n_cells = 2};
    static const struct {
        size_t len;
        uint8_t bytes[8];
    } broken[] = {
        {0, {0}},                   /* nothing */
        {1, {3}},                   /* more cells than there are */
        {2, {1, 0x20}},             /* the third of two */
        {3, {1, 0x0a, 1}},          /* a number cut short */
        {2, {1, 0xf0}},             /* a skip cut short */
        {3, {2, 0x00, 0x10}},       /* the second one is out of range */
        {4, {1, 0xf0, 0xff, 0x7f}}, /* a skip far out of range */
    };
    for (size_t i = 0; i < ARRAY_LEN(broken); i++) {
        uint64_t cells[2];
        const uint8_t *at = broken[i].bytes;
        int r = codec_get_block(&at, at + broken[i].len, &shape, true, cells);
        ck_assert_msg(r == -EBADMSG, "block %zu", i);
    }
}
END_TEST

START_TEST(varints)
{
    const uint64_t values[] = {0, 1, 127, 128, 300, UINT64_MAX, UINT64_C(1) << 63};
    uint8_t bytes[VARINT_BYTES_MAX];
    uint64_t value;
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        const uint8_t *at = bytes, *end = put_varint(bytes, values[i]);
        ck_assert(get_varint(&at, end, &value));
        ck_assert_uint_eq(value, values[i]);
        ck_assert_ptr_eq(at, end);
        at = bytes;
        ck_assert(!get_varint(&at, end - 1, &value));
        ck_assert_uint_eq(unzigzag(zigzag(values[i])), values[i]);
    }
    const uint8_t too_long[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02};
    const uint8_t *at = too_long;
    ck_assert(!get_varint(&at, too_long + sizeof too_long, &value));
    ck_assert_uint_eq(zigzag(-UINT64_C(1)), 1);
    ck_assert_uint_eq(zigzag(1), 2);
}
END_TEST

/* --- how a process has ended --- */

START_TEST(stat_lines)
{
    static const char rest[] =
        " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27"
        " 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 ";
    char line[512];
    int status = -1;
    (void)snprintf(line, sizeof line, "42 (a) Z b) Z%s9\n", rest);
    ck_assert(exit_status_parse(line, &status));
    ck_assert_int_eq(status, 9);
    (void)snprintf(line, sizeof line, "42 (a) R%s9\n", rest);
    ck_assert(!exit_status_parse(line, &status));
    ck_assert(!exit_status_parse("42 (a) Z 1 2 3\n", &status));
    ck_assert(!exit_status_parse("42 (a", &status));
    ck_assert(!exit_status_parse("", &status));
}
END_TEST

/* Nobody's child but ours: as a zombie, and once it is reaped where the kernel keeps the answer. */
START_TEST(how_a_process_ended)
{
    const int signals[] = {0, SIGKILL, SIGUSR2};
    int status = -1, waited;
    pid_t pid = fork();
    if (pid == 0) {
        if (signals[_i])
            (void)raise(signals[_i]);
        _exit(3);
    }
    CLEANUP_FD int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    ck_assert_int_ge(pidfd, 0);
    siginfo_t info;
    ck_assert_int_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    ck_assert_int_eq(exit_status_ask(pidfd, pid, &status), EXIT_KNOWN);
    ck_assert_int_eq(waitpid(pid, &waited, 0), pid);
    ck_assert_int_eq(status, waited);
    ck_assert_int_eq(WIFSIGNALED(status), signals[_i] != 0);
    status = -1;
    enum exit_answer answer = exit_status_ask(pidfd, pid, &status);
    ck_assert_int_ne(answer, EXIT_NOT_YET);
    if (answer == EXIT_KNOWN)
        ck_assert_int_eq(status, waited);
}
END_TEST

/* --- files --- */

START_TEST(names_of_files)
{
    char name[192], longest[300];
    dump_file_name(INT64_C(1700000000123456789), "killed", "web 1/../\xc3\xa4", name, sizeof name);
    ck_assert_str_eq(name, "kvmstatd-20231114T221320.123456789Z-killed-web_1_..___.kvmdump");
    dump_file_name(0, "signal", "", name, sizeof name);
    ck_assert_str_eq(name, "kvmstatd-19700101T000000.000000000Z-signal.kvmdump");
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    dump_file_name(0, "killed", longest, name, sizeof name);
    ck_assert_str_eq(name + strlen(name) - strlen(DUMP_SUFFIX), DUMP_SUFFIX);
    ck_assert_uint_lt(strlen(name), 160);
}
END_TEST

static bool is_there(int dir_fd, const char *name)
{
    return faccessat(dir_fd, name, F_OK, 0) == 0;
}

/* Files kvmstatd-0, -1 … of 10 bytes each, in a directory that is made for them. */
static void write_files(const char *path, int n)
{
    char name[64];
    for (int i = 0; i < n; i++) {
        CLEANUP_DUMP_OUTPUT struct dump_output output = {.dir_fd = -1, .fd = -1};
        (void)snprintf(name, sizeof name, "kvmstatd-%d" DUMP_SUFFIX, i);
        ck_assert_int_eq(dump_output_open(path, &output), 0);
        ck_assert_int_eq(dump_output_write(&output, "0123456789", 10), 0);
        ck_assert(!is_there(output.dir_fd, name));
        ck_assert_int_eq(dump_output_commit(&output, name), 0);
        ck_assert(is_there(output.dir_fd, name));
    }
}

START_TEST(the_oldest_files_go)
{
    char folder[] = "/tmp/kvmstatd-test-XXXXXX", path[128];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/dumps", folder);
    write_files(path, 5);
    CLEANUP_FD int dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_FD int other = openat(dir_fd, "kvmstatd-other", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    ck_assert_int_ge(other, 0);
    dump_directory_prune(dir_fd, "kvmstatd-4" DUMP_SUFFIX, 4, 1000);
    ck_assert(!is_there(dir_fd, "kvmstatd-0" DUMP_SUFFIX));
    ck_assert(is_there(dir_fd, "kvmstatd-1" DUMP_SUFFIX));
    dump_directory_prune(dir_fd, "kvmstatd-4" DUMP_SUFFIX, 4, 20);
    ck_assert(!is_there(dir_fd, "kvmstatd-2" DUMP_SUFFIX));
    ck_assert(is_there(dir_fd, "kvmstatd-3" DUMP_SUFFIX));
    dump_directory_prune(dir_fd, "kvmstatd-4" DUMP_SUFFIX, 4, 1);
    ck_assert(!is_there(dir_fd, "kvmstatd-3" DUMP_SUFFIX));
    ck_assert(is_there(dir_fd, "kvmstatd-4" DUMP_SUFFIX));
    ck_assert(is_there(dir_fd, "kvmstatd-other"));
    ck_assert_int_eq(unlinkat(dir_fd, "kvmstatd-4" DUMP_SUFFIX, 0), 0);
    ck_assert_int_eq(unlinkat(dir_fd, "kvmstatd-other", 0), 0);
    ck_assert_int_eq(rmdir(path), 0);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

/* Files of a time when the clock was ahead. */
START_TEST(what_was_just_written_stays)
{
    char folder[] = "/tmp/kvmstatd-test-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(folder));
    write_files(folder, 4);
    CLEANUP_FD int dir_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    dump_directory_prune(dir_fd, "kvmstatd-1" DUMP_SUFFIX, 2, 1000);
    ck_assert(!is_there(dir_fd, "kvmstatd-0" DUMP_SUFFIX));
    ck_assert(is_there(dir_fd, "kvmstatd-1" DUMP_SUFFIX));
    ck_assert(!is_there(dir_fd, "kvmstatd-2" DUMP_SUFFIX));
    ck_assert(is_there(dir_fd, "kvmstatd-3" DUMP_SUFFIX));
    dump_directory_prune(dir_fd, "kvmstatd-1" DUMP_SUFFIX, 2, 15);
    ck_assert(is_there(dir_fd, "kvmstatd-1" DUMP_SUFFIX));
    ck_assert(!is_there(dir_fd, "kvmstatd-3" DUMP_SUFFIX));
    ck_assert_int_eq(unlinkat(dir_fd, "kvmstatd-1" DUMP_SUFFIX, 0), 0);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("recorder");
    TCase *tests = tcase_create("units");
    tcase_add_test(tests, a_cell_takes_what_it_must);
    tcase_add_test(tests, a_block_that_does_not_move_takes_a_byte);
    tcase_add_test(tests, broken_blocks_are_refused);
    tcase_add_test(tests, varints);
    tcase_add_test(tests, stat_lines);
    tcase_add_loop_test(tests, how_a_process_ended, 0, 3);
    tcase_add_test(tests, names_of_files);
    tcase_add_test(tests, the_oldest_files_go);
    tcase_add_test(tests, what_was_just_written_stays);
    suite_add_tcase(suite, tests);
    return testing_run(suite, replay_suite(), (Suite *)NULL);
}
