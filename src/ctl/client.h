/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's HTTP, as a client sees it: one GET after the other. What answers there may be
 * anything: its size, its time and the kinds of what it says are bounded and checked.
 */
#pragma once

#include <curl/curl.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"

struct client_options {
    const char *address; /* NULL: KVMSTATD_ADDRESS, else where the packaged service listens */
    const char *cacert;  /* NULL: no TLS */
    const char *user;    /* NULL: none; the password is KVMSTATD_PASSWORD */
};

/* Lines for a command's table of long options, and what --help says of them. */
enum {
    CLIENT_OPTION_ADDRESS = 1000,
    CLIENT_OPTION_CACERT,
    CLIENT_OPTION_USER,
};
#define CLIENT_LONG_OPTIONS                                        \
    {"address", required_argument, NULL, CLIENT_OPTION_ADDRESS},   \
        {"cacert", required_argument, NULL, CLIENT_OPTION_CACERT}, \
    {                                                              \
        "user", required_argument, NULL, CLIENT_OPTION_USER        \
    }
#define CLIENT_USAGE                                                                         \
    "  --address ADDR  where kvmstatd listens: unix:PATH or HOST:PORT (default:\n"           \
    "                  KVMSTATD_ADDRESS, else the service's socket, else 127.0.0.1:10177)\n" \
    "  --cacert FILE   use TLS; the server's certificate is to be by this authority\n"       \
    "  --user NAME     who you are, where users are asked; the password is in\n"             \
    "                  KVMSTATD_PASSWORD\n"                                                  \
    "  --help          print this and exit\n"

/* Whether `c`, from getopt_long(), was one of these; then it is kept. */
bool client_option(struct client_options *options, int c, const char *argument);

struct client {
    CURL *curl;          /* owned */
    const char *command; /* for messages, static */
    struct client_options options;
    const volatile sig_atomic_t *stop; /* NULL or: a transfer ends when it becomes true */
    bool decided;                      /* an address has answered */
    bool too_large;
    size_t max_bytes;
    long status; /* of the last answer, 0: there was none */
    struct buffer body;
    struct {
        uint64_t vm;            /* the daemon's number for it, never used twice; 0: not said */
        int64_t wall_offset_ns; /* from its monotonic clock to the times it says; 0: not said */
    } recording;                /* of a history */
    char message[1024];         /* what is wrong, for a person */
};

/*
 * Returns 0, -EINVAL (the address is none; has been said) or -ENOMEM. Options are borrowed for the
 * client's life.
 */
MUST_USE int client_open(struct client *client, const char *command,
                         const struct client_options *options);
void client_close(struct client *client);
#define CLEANUP_CLIENT CLEANUP(client_close)

/*
 * Gets `path` (what stands behind the host) into client->body, at most `max_bytes`. Returns 0, or
 * with client->message set: -ENOENT (404), -EINTR (stopped), -EAGAIN (no answer, or 503: it may
 * pass), -E2BIG (it would say more than it does at once), -EIO (anything else).
 */
MUST_USE int client_get(struct client *client, const char *path, size_t max_bytes);
/* What client_get() got, as JSON: an object that the caller owns. Returns 0 or -EIO. */
MUST_USE int client_parse(struct client *client, json_object **ret_json);
/* `/api/v1/history` of a VM, and client->recording; `stats` may be NULL, `vcpu` < 0 stands for all.
 */
MUST_USE int client_get_history(struct client *client, const char *vm, const char *stats,
                                int32_t vcpu, int64_t last_ns, const char *format);
/* `/api/v1/vms`: every member of `*ret_vms`, which `*ret_json` owns, is an object with text "vm".
 */
MUST_USE int client_get_vms(struct client *client, json_object **ret_json, json_object **ret_vms);
/* The message as a line on standard error. */
void client_complain(const struct client *client);

static inline void cleanup_json(json_object **json)
{
    json_object_put(*json);
}
#define CLEANUP_JSON CLEANUP(cleanup_json)

/* Members of objects that somebody else has made: "" or the other value when they are not there. */
const char *json_text(json_object *object, const char *key);
int64_t json_i64(json_object *object, const char *key, int64_t otherwise);
double json_number(json_object *object, const char *key, double otherwise);
json_object *json_array(json_object *object, const char *key); /* or NULL */
