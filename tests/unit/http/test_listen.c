/* SPDX-License-Identifier: Apache-2.0 */
#include "http_test.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "clock.h"
#include "listen.h"

static char folder[64];
static char path[96];
static int64_t patience_ns = INT64_MAX / 2;

static void make_folder(void)
{
    strcpy(folder, "/tmp/kvmstatd-listen-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/http.sock", folder);
}

static void remove_folder(void)
{
    (void)unlink(path);
    (void)rmdir(folder);
}

static int open_at(const char *host, uint16_t port, bool is_v6, bool is_unix,
                   struct listen_socket *ret_socket, struct config_error *ret_error)
{
    struct listen_address address = {.port = port, .is_v6 = is_v6, .is_unix = is_unix};
    (void)snprintf(address.host, sizeof address.host, "%s", host);
    const struct listen_how how = {.until_ns = clock_now_ns() + patience_ns};
    return listen_open(&address, "ADDRESS", &how, ret_socket, ret_error);
}

static void assert_error(const struct config_error *error, const char *part)
{
    ck_assert_msg(strstr(error->message, "web.listen: ADDRESS: ") == error->message &&
                      strstr(error->message, part),
                  "\"%s\" does not say \"%s\"", error->message, part);
}

/* Whether a new connection to the port gets through. */
static bool connects(int family, uint16_t port)
{
    int fd = client_connect_inet(family, port);
    return close(fd) == 0;
}

START_TEST(flags_of_the_socket)
{
    struct listen_socket socket;
    struct config_error error;
    int value = 0;
    socklen_t len = sizeof value;
    ck_assert_int_eq(open_at("127.0.0.1", 0, false, false, &socket, &error), 0);
    ck_assert_uint_ne(socket.port, 0);
    ck_assert_int_eq(fcntl(socket.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    ck_assert_int_eq(fcntl(socket.fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    ck_assert_int_eq(getsockopt(socket.fd, SOL_SOCKET, SO_REUSEADDR, &value, &len), 0);
    ck_assert_int_ne(value, 0);
    ck_assert(connects(AF_INET, socket.port));
    listen_close(&socket);
    ck_assert_int_eq(socket.fd, -1);
}
END_TEST

START_TEST(names_are_resolved)
{
    struct listen_socket socket;
    struct config_error error;
    ck_assert_int_eq(open_at("localhost", 0, false, false, &socket, &error), 0);
    ck_assert_uint_ne(socket.port, 0);
    listen_close(&socket);
    ck_assert_int_eq(open_at("no-such-name.invalid", 1234, false, false, &socket, &error),
                     -EADDRNOTAVAIL);
    assert_error(&error, "cannot be resolved");
}
END_TEST

/* A resolver that asks far away, and gets no answer. */
static sem_t answers;

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                struct addrinfo **ret_found)
{
    __typeof__(&getaddrinfo) real = (__typeof__(&getaddrinfo))dlsym(RTLD_NEXT, "getaddrinfo");
    if (strcmp(host, "far.invalid") == 0 && !(hints->ai_flags & AI_NUMERICHOST)) {
        (void)sem_wait(&answers);
        host = "127.0.0.1";
    }
    return real(host, port, hints, ret_found);
}

START_TEST(a_resolver_that_does_not_answer_is_given_up)
{
    struct listen_socket socket;
    struct config_error error;
    ck_assert_int_eq(sem_init(&answers, 0, 0), 0);
    patience_ns = 50 * NSEC_PER_MSEC;
    ck_assert_int_eq(open_at("far.invalid", 0, false, false, &socket, &error), -ETIMEDOUT);
    assert_error(&error, "the name cannot be resolved: timed out");
    /* No time is left, and numbers take none. */
    patience_ns = 0;
    ck_assert_int_eq(open_at("localhost", 0, false, false, &socket, &error), -ETIMEDOUT);
    ck_assert_int_eq(open_at("127.0.0.1", 0, false, false, &socket, &error), 0);
    listen_close(&socket);
    /* The answer that comes at last is dropped; the next one is used. */
    patience_ns = INT64_MAX / 2;
    ck_assert_int_eq(sem_post(&answers), 0);
    ck_assert_int_eq(sem_post(&answers), 0);
    ck_assert_int_eq(open_at("far.invalid", 0, false, false, &socket, &error), 0);
    ck_assert(connects(AF_INET, socket.port));
    listen_close(&socket);
}
END_TEST

/* Skips the test on a machine without IPv6. */
static void need_ipv6(void)
{
    if (!has_ipv6())
        testing_skip("this machine has no IPv6 loopback address");
}

START_TEST(a_v6_literal_is_v6_only)
{
    struct listen_socket v6, v4;
    struct config_error error;
    need_ipv6();
    int r = -EADDRINUSE;
    /* The port that is free for IPv6 may be another program's for IPv4. */
    for (int i = 0; i < 100 && r == -EADDRINUSE; i++) {
        ck_assert_int_eq(open_at("::", 0, true, false, &v6, &error), 0);
        ck_assert(connects(AF_INET6, v6.port));
        r = open_at("0.0.0.0", v6.port, false, false, &v4, &error);
        listen_close(&v6);
    }
    ck_assert_int_eq(r, 0);
    listen_close(&v4);
}
END_TEST

START_TEST(no_host_is_both)
{
    struct listen_socket socket;
    struct config_error error;
    ck_assert_int_eq(open_at("", 0, false, false, &socket, &error), 0);
    ck_assert(connects(AF_INET, socket.port));
    need_ipv6();
    ck_assert(connects(AF_INET6, socket.port));
    listen_close(&socket);
}
END_TEST

START_TEST(a_port_in_use_is_said)
{
    struct listen_socket first, second;
    struct config_error error;
    ck_assert_int_eq(open_at("127.0.0.1", 0, false, false, &first, &error), 0);
    ck_assert_int_eq(open_at("127.0.0.1", first.port, false, false, &second, &error), -EADDRINUSE);
    assert_error(&error, "in use");
    listen_close(&first);
}
END_TEST

START_TEST(at_a_reload_an_address_of_others_is_said)
{
    /* TEST-NET-1 of RFC 5737: nobody's. */
    const struct listen_address address = {.host = "192.0.2.1"};
    const struct listen_how how = {.share = true};
    struct listen_socket socket;
    struct config_error error;
    ck_assert_int_eq(listen_open(&address, "ADDRESS", &how, &socket, &error), -EADDRNOTAVAIL);
    assert_error(&error, "no such address");
}
END_TEST

static void of_loopback(unsigned long what, struct ifreq *request)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ioctl(fd, what, request), 0);
    ck_assert_int_eq(close(fd), 0);
}

/* A network of this process' own, with a loopback device that is down. */
static void enter_network(void)
{
    if (unshare(CLONE_NEWNET) < 0)
        testing_skip("no network namespace can be made");
}

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    of_loopback(SIOCSIFFLAGS, &request);
}

static bool connects_to(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool done = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) == 0;
    return close(fd) == 0 && done;
}

START_TEST(an_address_that_comes_later_is_listened_at)
{
    struct listen_socket socket;
    struct config_error error;
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct ifreq request = {.ifr_name = "lo:1"};
    enter_network();
    raise_loopback();
    ck_assert_int_eq(inet_pton(AF_INET, "192.0.2.1", &address.sin_addr), 1);
    ck_assert_int_eq(open_at("192.0.2.1", 0, false, false, &socket, &error), 0);
    ck_assert(socket.absent);
    memcpy(&request.ifr_addr, &address, sizeof address);
    of_loopback(SIOCSIFADDR, &request);
    address.sin_port = htons(socket.port);
    ck_assert(connects_to(&address));
    listen_close(&socket);
    ck_assert_int_eq(open_at("192.0.2.1", 0, false, false, &socket, &error), 0);
    ck_assert(!socket.absent);
    listen_close(&socket);
}
END_TEST

START_TEST(a_v6_address_that_comes_later_is_listened_at)
{
    struct listen_socket socket;
    struct config_error error;
    need_ipv6();
    enter_network();
    ck_assert_int_eq(open_at("::1", 0, true, false, &socket, &error), 0);
    ck_assert(socket.absent);
    raise_loopback();
    ck_assert(connects(AF_INET6, socket.port));
    listen_close(&socket);
}
END_TEST

/* For this process /etc/hosts has these lines alone. */
static void replace_hosts(const char *lines)
{
    char hosts[sizeof folder + 8];
    (void)snprintf(hosts, sizeof hosts, "%s/hosts", folder);
    int fd = open(hosts, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, lines, strlen(lines)), (ssize_t)strlen(lines));
    ck_assert_int_eq(close(fd), 0);
    bool done = unshare(CLONE_NEWNS) == 0 &&
                mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                mount(hosts, "/etc/hosts", NULL, MS_BIND, NULL) == 0;
    (void)unlink(hosts);
    if (!done)
        testing_skip("/etc/hosts cannot be replaced");
}

/* Of a name's addresses one is in use and one not there: to listen there would help nobody. */
START_TEST(an_address_in_use_is_not_given_up_for_one_that_is_not_there)
{
    struct listen_socket first, second;
    struct config_error error;
    enter_network();
    raise_loopback();
    replace_hosts("127.0.0.1 two.invalid\n192.0.2.1 two.invalid\n");
    ck_assert_int_eq(open_at("two.invalid", 0, false, false, &first, &error), 0);
    ck_assert(!first.absent);
    ck_assert_int_eq(open_at("two.invalid", first.port, false, false, &second, &error),
                     -EADDRINUSE);
    listen_close(&first);
}
END_TEST

START_TEST(unix_mode_whatever_the_umask)
{
    static const mode_t umasks[] = {0, 022, 077, 0777};
    struct listen_socket socket;
    struct config_error error;
    struct stat st;
    mode_t before = umask(umasks[_i]);
    int r = open_at(path, 0, false, true, &socket, &error);
    (void)umask(before);
    ck_assert_int_eq(r, 0);
    ck_assert_uint_eq(socket.port, 0);
    ck_assert_int_eq(lstat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode, S_IFSOCK | 0660);
    (void)close(client_connect_unix(path));
    listen_close(&socket);
    ck_assert_int_eq(lstat(path, &st), -1);
}
END_TEST

START_TEST(a_live_unix_socket_is_refused)
{
    struct listen_socket first, second;
    struct config_error error;
    ck_assert_int_eq(open_at(path, 0, false, true, &first, &error), 0);
    ck_assert_int_eq(open_at(path, 0, false, true, &second, &error), -EADDRINUSE);
    assert_error(&error, "in use");
    (void)close(client_connect_unix(path)); /* the live one is as it was */
    listen_close(&first);
}
END_TEST

START_TEST(a_stale_unix_socket_is_replaced)
{
    struct listen_socket killed, next;
    struct config_error error;
    ck_assert_int_eq(open_at(path, 0, false, true, &killed, &error), 0);
    (void)close(killed.fd); /* the file stays, as after a kill */
    ck_assert_int_eq(open_at(path, 0, false, true, &next, &error), 0);
    (void)close(client_connect_unix(path));
    listen_close(&next);
}
END_TEST

START_TEST(other_files_are_left_alone)
{
    struct listen_socket socket;
    struct config_error error;
    struct stat st;
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    (void)close(fd);
    ck_assert_int_eq(open_at(path, 0, false, true, &socket, &error), -EEXIST);
    assert_error(&error, "not a socket");
    ck_assert_int_eq(lstat(path, &st), 0);
    ck_assert(S_ISREG(st.st_mode));
}
END_TEST

START_TEST(only_our_own_file_is_removed)
{
    struct listen_socket ours, theirs;
    struct config_error error;
    struct stat st;
    ck_assert_int_eq(open_at(path, 0, false, true, &ours, &error), 0);
    ck_assert_int_eq(unlink(path), 0); /* somebody clears up and starts another */
    ck_assert_int_eq(open_at(path, 0, false, true, &theirs, &error), 0);
    listen_close(&ours);
    ck_assert_int_eq(lstat(path, &st), 0);
    (void)close(client_connect_unix(path));
    listen_close(&theirs);
}
END_TEST

START_TEST(unix_paths_that_cannot_be)
{
    struct listen_socket socket;
    struct config_error error;
    char exact[sizeof(((struct sockaddr_un *)0)->sun_path)];
    char too_long[sizeof exact + 1];
    memset(too_long, 'x', sizeof too_long);
    too_long[0] = '/';
    too_long[sizeof too_long - 1] = '\0';
    ck_assert_int_eq(open_at(too_long, 0, false, true, &socket, &error), -ENAMETOOLONG);
    assert_error(&error, "107");
    ck_assert_int_eq(open_at("/no/such/folder/s", 0, false, true, &socket, &error), -ENOENT);

    /* The longest that can be. */
    int len = snprintf(exact, sizeof exact, "%s/", folder);
    memset(exact + len, 'x', sizeof exact - (size_t)len);
    exact[sizeof exact - 1] = '\0';
    ck_assert_int_eq(open_at(exact, 0, false, true, &socket, &error), 0);
    (void)close(client_connect_unix(exact));
    listen_close(&socket);
}
END_TEST

Suite *suite_listen(void)
{
    Suite *suite = suite_create("listen");
    TCase *tests = tcase_create("listen");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, make_folder, remove_folder);
    tcase_add_test(tests, flags_of_the_socket);
    tcase_add_test(tests, names_are_resolved);
    tcase_add_test(tests, a_resolver_that_does_not_answer_is_given_up);
    tcase_add_test(tests, a_v6_literal_is_v6_only);
    tcase_add_test(tests, no_host_is_both);
    tcase_add_test(tests, a_port_in_use_is_said);
    tcase_add_test(tests, at_a_reload_an_address_of_others_is_said);
    tcase_add_test(tests, an_address_that_comes_later_is_listened_at);
    tcase_add_test(tests, a_v6_address_that_comes_later_is_listened_at);
    tcase_add_test(tests, an_address_in_use_is_not_given_up_for_one_that_is_not_there);
    tcase_add_loop_test(tests, unix_mode_whatever_the_umask, 0, 4);
    tcase_add_test(tests, a_live_unix_socket_is_refused);
    tcase_add_test(tests, a_stale_unix_socket_is_replaced);
    tcase_add_test(tests, other_files_are_left_alone);
    tcase_add_test(tests, only_our_own_file_is_removed);
    tcase_add_test(tests, unix_paths_that_cannot_be);
    suite_add_tcase(suite, tests);
    return suite;
}
