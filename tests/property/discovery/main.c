/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU itself says how it reads a command line: random ones of -name, -uuid and -smbios, in every
 * order and spelling, are given to it and to us, and its answers to query-name and query-uuid are
 * compared with what we have read from /proc. No KVM is needed.
 */
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "identity/identity.h"
#include "testing.h"

enum {
    ROUNDS = 40,
    OPTIONS_MAX = 6,
    ARGUMENTS_MAX = 8 + 2 * OPTIONS_MAX,
    VALUE_BYTES = 256,
    ANSWER_BYTES = 16384,
};

static const char no_uuid[] = "00000000-0000-0000-0000-000000000000";

struct command {
    char *items[ARGUMENTS_MAX + 1];
    size_t n;
    char values[OPTIONS_MAX][VALUE_BYTES];
};

/* A value with its commas doubled, as QEMU wants them. */
static char *random_text(char *to)
{
    static const char likely[] = "abcguest=uuid=-,,  \"'\\[]{}\n";
    size_t n = testing_random_below(12);
    for (size_t i = 0; i < n; i++) {
        *to++ = likely[testing_random_below(sizeof likely - 1)];
        if (to[-1] == ',')
            *to++ = ',';
    }
    *to = '\0';
    return to;
}

static char *random_uuid(char *to)
{
    uint64_t a = testing_random(), b = testing_random();
    return to + sprintf(to, "%08x-%04x-4%03x-8%03x-%012llx", (unsigned)a, (unsigned)(a >> 48),
                        (unsigned)(a >> 32 & 0xfff), (unsigned)(b & 0xfff),
                        (unsigned long long)(b >> 16));
}

static const char *random_option(char *value)
{
    char *p = value;
    switch (testing_random_below(6)) {
    case 0: /* the name without its key; what begins with a key is one */
        *p++ = "abc-."[testing_random_below(5)];
        while (testing_random_below(4))
            *p++ = "abc- \"\\"[testing_random_below(7)];
        *p = '\0';
        return testing_random_below(2) ? "-name" : "--name";
    case 1:
        p = stpcpy(p, "guest=");
        p = random_text(p);
        if (testing_random_below(2))
            (void)stpcpy(p, ",debug-threads=on");
        return "-name";
    case 2:
        p = stpcpy(p, "process=qemu,,x");
        if (testing_random_below(2))
            (void)random_text(stpcpy(p, ",guest="));
        return "-name";
    case 3:
        (void)random_uuid(p);
        return testing_random_below(2) ? "-uuid" : "--uuid";
    case 4:
        p = stpcpy(p, testing_random_below(2) ? "type=1,serial=a,,uuid=b,uuid=" : "type=1,uuid=");
        p = random_uuid(p);
        if (testing_random_below(2))
            (void)stpcpy(p, ",product=OpenStack Nova");
        return "-smbios";
    default: /* a file's name that looks like an option */
        (void)stpcpy(p, testing_random_below(2) ? "-name" : "--uuid");
        return "-L";
    }
}

static void random_command(struct command *command)
{
    static const char *const head[] = {
        "qemu-system-x86_64", "-machine", "none", "-display", "none", "-qmp", "stdio", "-S"};
    size_t n_options = testing_random_below(OPTIONS_MAX + 1);
    command->n = 0;
    for (size_t i = 0; i < ARRAY_LEN(head); i++)
        command->items[command->n++] = (char *)(uintptr_t)head[i];
    for (size_t i = 0; i < n_options; i++) {
        const char *option = random_option(command->values[i]);
        command->items[command->n++] = (char *)(uintptr_t)option;
        command->items[command->n++] = command->values[i];
    }
    command->items[command->n] = NULL;
}

/* What QEMU prints until it ends, by its own command; false where there is no QEMU. */
static bool ask_qemu(const struct command *command, char answer[ANSWER_BYTES])
{
    static const char questions[] = "{'execute':'qmp_capabilities'}{'execute':'query-name'}"
                                    "{'execute':'query-uuid'}{'execute':'quit'}";
    int in[2], out[2], status;
    size_t len = 0;
    ssize_t n;

    ck_assert_int_eq(pipe2(in, O_CLOEXEC), 0);
    ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        (void)dup2(in[0], STDIN_FILENO);
        (void)dup2(out[1], STDOUT_FILENO);
        (void)execvp(command->items[0], command->items);
        _exit(127);
    }
    (void)close(in[0]);
    (void)close(out[1]);
    ck_assert_int_eq(write(in[1], questions, sizeof questions - 1), sizeof questions - 1);
    while (len < ANSWER_BYTES - 1 && (n = read(out[0], answer + len, ANSWER_BYTES - 1 - len)) > 0)
        len += (size_t)n;
    answer[len] = '\0';
    (void)close(in[1]);
    (void)close(out[0]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return false;
    for (size_t i = 0; status != 0 && i < command->n; i++)
        printf("# argument %zu: %s\n", i, command->items[i]);
    ck_assert_int_eq(status, 0);
    return true;
}

/* {"return": {KEY: VALUE}} on a line of its own; "" where no answer has it. */
static void take_answer(const char *answer, const char *key, char to[ANSWER_BYTES])
{
    CLEANUP_FREE char *copy = strdup(answer);
    char *at = copy, *line;
    to[0] = '\0';
    while ((line = strsep(&at, "\r\n"))) {
        struct json_object *object = json_tokener_parse(line), *body, *value;
        if (json_object_object_get_ex(object, "return", &body) &&
            json_object_object_get_ex(body, key, &value))
            (void)snprintf(to, ANSWER_BYTES, "%s", json_object_get_string(value));
        json_object_put(object);
    }
}

static void read_identity(const struct command *command, struct identity *ret_identity)
{
    char cmdline[ARGUMENTS_MAX * VALUE_BYTES];
    size_t len = 0;
    for (size_t i = 0; i < command->n; i++)
        len = (size_t)(stpcpy(cmdline + len, command->items[i]) + 1 - cmdline);
    const struct identity_sources sources = {
        .executable = "qemu-system-x86_64",
        .cmdline = cmdline,
        .cmdline_len = len,
        .comm = "",
        .cgroup = "",
    };
    ck_assert_int_eq(identity_make(&sources, ret_identity), 0);
}

START_TEST(qemu_agrees)
{
    unsigned named = 0;
    for (int round = 0; round < ROUNDS; round++) {
        CLEANUP_IDENTITY struct identity identity = {0};
        struct command command;
        char answer[ANSWER_BYTES], name[ANSWER_BYTES], uuid[ANSWER_BYTES];
        random_command(&command);
        if (!ask_qemu(&command, answer))
            testing_skip("no qemu-system-x86_64");
        take_answer(answer, "name", name);
        take_answer(answer, "UUID", uuid);
        ck_assert_uint_eq(strlen(uuid), sizeof no_uuid - 1);
        read_identity(&command, &identity);
        ck_assert_str_eq(identity.name, name);
        ck_assert_str_eq(*identity.uuid ? identity.uuid : no_uuid, uuid);
        named += *name != '\0';
    }
    ck_assert_uint_gt(named, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("identity");
    TCase *tcase = tcase_create("qemu");
    tcase_set_timeout(tcase, 100);
    tcase_add_test(tcase, qemu_agrees);
    suite_add_tcase(suite, tcase);
    return testing_run(suite, NULL);
}
