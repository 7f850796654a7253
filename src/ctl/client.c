/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurl speaks HTTP and TLS. What it is told not to do matters more than what it is told: no
 * proxy (the environment's is for the world outside), no redirects, no other protocol, no answer
 * without an end.
 */
#include "client.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "clock.h"
#include "table.h"

enum {
    CONNECT_TIMEOUT_S = 10,
    TIMEOUT_S = 60,
    JSON_DEPTH_MAX = 16, /* of ours: 6 */
    URL_BYTES = 4096,
};
#define VMS_BYTES_MAX     ((size_t)64 << 20)  /* 16384 VMs at 4 KiB */
#define HISTORY_BYTES_MAX ((size_t)512 << 20) /* a recorder's whole memory, as text */

/* Where the packaged service listens, then where the daemon does by itself. */
static const char *const default_addresses[] = {"unix:/run/kvmstatd/metrics.sock",
                                                "127.0.0.1:10177"};

bool client_option(struct client_options *options, int c, const char *argument)
{
    switch (c) {
    case CLIENT_OPTION_ADDRESS:
        options->address = argument;
        return true;
    case CLIENT_OPTION_CACERT:
        options->cacert = argument;
        return true;
    case CLIENT_OPTION_USER:
        options->user = argument;
        return true;
    default:
        return false;
    }
}

PRINTF_LIKE(3, 4)
static int fail(struct client *client, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(client->message, sizeof client->message, format, args);
    va_end(args);
    return error;
}

void client_complain(const struct client *client)
{
    fprintf(stderr, "kvmstatctl %s: ", client->command);
    print_plain(client->message, stderr);
    fputc('\n', stderr);
}

static const char *unix_path(const char *address)
{
    return strncmp(address, "unix:", 5) == 0 ? address + 5 : NULL;
}

/* A typing error is to be said as one, not as a host that does not exist. */
static bool is_address(const char *address)
{
    const char *path = unix_path(address);
    if (path)
        return path[0] && strlen(path) < sizeof((struct sockaddr_un *)NULL)->sun_path;
    const char *port = strrchr(address, ':');
    return port && port[1] && !port[1 + strspn(port + 1, "0123456789")] && strlen(port) <= 6 &&
           !address[strcspn(address, "/?#@\\ \t\r\n")] && strlen(address) < 300;
}

static size_t on_bytes(char *bytes, size_t size, size_t n, void *ctx)
{
    struct client *client = ctx;
    size_t len = size * n;
    if (len > client->max_bytes - client->body.len) {
        client->too_large = true;
        return 0; /* which ends the transfer */
    }
    buffer_put(&client->body, bytes, len);
    return client->body.error ? 0 : len;
}

static int on_progress(void *ctx, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal,
                       curl_off_t ulnow)
{
    const struct client *client = ctx;
    (void)dltotal, (void)dlnow, (void)ultotal, (void)ulnow;
    return client->stop && *client->stop;
}

static CURLcode set_options(struct client *client)
{
    CURL *curl = client->curl;
    CURLcode c = CURLE_OK;
    const struct client_options *o = &client->options;
    const char *password = getenv("KVMSTATD_PASSWORD");
#define SET(option, value) c = c == CURLE_OK ? curl_easy_setopt(curl, option, value) : c
    SET(CURLOPT_PROTOCOLS_STR, o->cacert ? "https" : "http");
    SET(CURLOPT_NOPROXY, "*");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
    SET(CURLOPT_TIMEOUT, (long)TIMEOUT_S);
    SET(CURLOPT_WRITEFUNCTION, on_bytes);
    SET(CURLOPT_WRITEDATA, client);
    SET(CURLOPT_NOPROGRESS, 0L);
    SET(CURLOPT_XFERINFOFUNCTION, on_progress);
    SET(CURLOPT_XFERINFODATA, client);
    if (o->cacert)
        SET(CURLOPT_CAINFO, o->cacert);
    if (o->user) {
        SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
        SET(CURLOPT_USERNAME, o->user);
        SET(CURLOPT_PASSWORD, password ? password : "");
    }
#undef SET
    return c;
}

int client_open(struct client *client, const char *command, const struct client_options *options)
{
    *client = (struct client){.command = command, .options = *options};
    if (!client->options.address)
        client->options.address = getenv("KVMSTATD_ADDRESS");
    if (client->options.address && !client->options.address[0])
        client->options.address = NULL;
    if (client->options.address && !is_address(client->options.address)) {
        fprintf(stderr, "kvmstatctl %s: %s: wants unix:PATH or HOST:PORT\n", command,
                client->options.address);
        return -EINVAL;
    }
    client->curl = curl_easy_init();
    if (!client->curl || set_options(client) != CURLE_OK) {
        fprintf(stderr, "kvmstatctl %s: libcurl cannot be used\n", command);
        return -ENOMEM;
    }
    return 0;
}

void client_close(struct client *client)
{
    curl_easy_cleanup(client->curl);
    client->curl = NULL;
    buffer_free(&client->body);
}

/* --- one request --- */

static CURLcode perform(struct client *client, const char *address, const char *path)
{
    char url[URL_BYTES];
    const char *socket = unix_path(address);
    const char *scheme = client->options.cacert && !socket ? "https" : "http";
    int len = snprintf(url, sizeof url, "%s://%s%s%s", scheme, address[0] == ':' ? "127.0.0.1" : "",
                       socket ? "localhost" : address, path);
    if (len < 0 || (size_t)len >= sizeof url)
        return CURLE_URL_MALFORMAT;
    client->body.len = 0;
    client->too_large = false;
    client->status = 0;
    CURLcode c = curl_easy_setopt(client->curl, CURLOPT_UNIX_SOCKET_PATH, socket);
    if (c == CURLE_OK && socket) /* which never is TLS */
        c = curl_easy_setopt(client->curl, CURLOPT_PROTOCOLS_STR, "http");
    if (c == CURLE_OK)
        c = curl_easy_setopt(client->curl, CURLOPT_URL, url);
    if (c == CURLE_OK)
        c = curl_easy_perform(client->curl);
    (void)curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &client->status);
    return c;
}

static const char *reason(const struct client *client, CURLcode c)
{
    long error = 0;
    (void)curl_easy_getinfo(client->curl, CURLINFO_OS_ERRNO, &error);
    if (c == CURLE_COULDNT_CONNECT && error == EACCES)
        return "Permission denied (the service's socket is for members of group kvmstatd)";
    return c == CURLE_COULDNT_CONNECT && error ? strerror((int)error) : curl_easy_strerror(c);
}

static int transfer_failed(struct client *client, const char *address, CURLcode c)
{
    if (c == CURLE_ABORTED_BY_CALLBACK)
        return fail(client, -EINTR, "interrupted");
    if (client->too_large)
        return fail(client, -EIO, "%s: more than %zu MiB: is this kvmstatd?", address,
                    client->max_bytes >> 20);
    if (c == CURLE_WRITE_ERROR)
        return fail(client, -EIO, "%s: no memory for its answer", address);
    if (c == CURLE_COULDNT_CONNECT || c == CURLE_COULDNT_RESOLVE_HOST)
        return fail(client, -EAGAIN,
                    "%s: %s: does kvmstatd run and listen there? --address or KVMSTATD_ADDRESS "
                    "says where",
                    address, reason(client, c));
    return fail(client, -EAGAIN, "%s: %s", address, reason(client, c));
}

static int refusal(const struct client *client, const char *said)
{
    if (client->status == 400 && strncmp(said, "more than ", 10) == 0)
        return -E2BIG;
    return client->status == 404 ? -ENOENT : client->status == 503 ? -EAGAIN : -EIO;
}

/* A refusal of ours is JSON with a sentence. */
static int refused(struct client *client, const char *address)
{
    buffer_put(&client->body, "", 1);
    CLEANUP_JSON json_object *json = client->body.len < 65536 && !client->body.error
                                         ? json_tokener_parse(client->body.data)
                                         : NULL;
    const char *said = json_text(json, "error");
    int error = refusal(client, said);
    if (said[0])
        return fail(client, error, "%s", said);
    if (client->status == 401 && client->options.user)
        return fail(client, -EIO, "%s: does not take %s with the password in KVMSTATD_PASSWORD",
                    address, client->options.user);
    if (client->status == 401)
        return fail(client, -EIO, "%s: wants to know who you are: --user and KVMSTATD_PASSWORD",
                    address);
    if (client->status == 503)
        return fail(client, error, "%s: is busy (503): try again", address);
    return fail(client, error, "%s: status %ld: is this kvmstatd?", address, client->status);
}

static CURLcode perform_anywhere(struct client *client, const char *path)
{
    CURLcode c = CURLE_COULDNT_CONNECT;
    char first[256] = "";
    if (client->options.address)
        return perform(client, client->options.address, path);
    for (size_t i = 0; i < ARRAY_LEN(default_addresses); i++) {
        c = perform(client, default_addresses[i], path);
        if (c != CURLE_COULDNT_CONNECT) {
            client->options.address = default_addresses[i];
            return c;
        }
        if (i == 0)
            (void)snprintf(first, sizeof first, "%s: %s", default_addresses[i], reason(client, c));
    }
    (void)fail(client, 0,
               "%s; %s: %s: does kvmstatd run? --address or KVMSTATD_ADDRESS says where it listens",
               first, default_addresses[1], reason(client, c));
    return c;
}

int client_get(struct client *client, const char *path, size_t max_bytes)
{
    client->max_bytes = max_bytes;
    client->message[0] = '\0';
    CURLcode c = perform_anywhere(client, path);
    const char *address = client->options.address;
    if (c != CURLE_OK)
        return address ? transfer_failed(client, address, c) : -EAGAIN;
    if (client->status != 200)
        return refused(client, address);
    return 0;
}

int client_parse(struct client *client, json_object **ret_json)
{
    struct json_tokener *tokener = json_tokener_new_ex(JSON_DEPTH_MAX);
    if (!tokener || client->body.len > INT32_MAX) {
        json_tokener_free(tokener);
        return fail(client, -EIO, "no memory for the answer");
    }
    json_object *json =
        client->body.len ? json_tokener_parse_ex(tokener, client->body.data, (int)client->body.len)
                         : NULL;
    enum json_tokener_error error = json_tokener_get_error(tokener);
    json_tokener_free(tokener);
    if (!json || error != json_tokener_success || !json_object_is_type(json, json_type_object)) {
        json_object_put(json);
        return fail(client, -EIO, "%s: its answer is not the JSON that kvmstatd gives",
                    client->options.address);
    }
    *ret_json = json;
    return 0;
}

static char *escape(struct client *client, const char *text)
{
    return curl_easy_escape(client->curl, text, 0);
}

/* A daemon from before there was that header says nothing. */
static void take_recording(struct client *client)
{
    struct curl_header *header;
    char *end;
    client->recording.vm = 0;
    client->recording.wall_offset_ns = 0;
    if (curl_easy_header(client->curl, "X-Kvmstatd-Recording", 0, CURLH_HEADER, -1, &header) !=
            CURLHE_OK ||
        strncmp(header->value, "vm=", 3) != 0)
        return;
    client->recording.vm = strtoull(header->value + 3, &end, 10);
    if (strncmp(end, "; wall_offset_ns=", 17) == 0)
        client->recording.wall_offset_ns = strtoll(end + 17, NULL, 10);
}

int client_get_history(struct client *client, const char *vm, const char *stats, int32_t vcpu,
                       int64_t last_ns, const char *format)
{
    char path[URL_BYTES], number[16] = "";
    char *vm_text = escape(client, vm), *stats_text = escape(client, stats ? stats : "");
    if (vcpu >= 0)
        (void)snprintf(number, sizeof number, "%" PRId32, vcpu);
    int len = vm_text && stats_text
                  ? snprintf(path, sizeof path,
                             "/api/v1/history?vm=%s&stat=%s&vcpu=%s&last=%" PRId64 "ms&format=%s",
                             vm_text, stats_text, number, last_ns / NSEC_PER_MSEC + 1, format)
                  : -1;
    curl_free(vm_text);
    curl_free(stats_text);
    if (len < 0 || (size_t)len >= sizeof path)
        return fail(client, -EIO, "that is too long to be asked for");
    int r = client_get(client, path, HISTORY_BYTES_MAX);
    if (r == 0)
        take_recording(client);
    return r;
}

int client_get_vms(struct client *client, json_object **ret_json, json_object **ret_vms)
{
    CLEANUP_JSON json_object *json = NULL;
    int r = client_get(client, "/api/v1/vms", VMS_BYTES_MAX);
    if (r == 0)
        r = client_parse(client, &json);
    if (r < 0)
        return r;
    json_object *vms = json_array(json, "vms");
    bool fine = vms != NULL;
    for (size_t i = 0; fine && i < json_object_array_length(vms); i++)
        fine = json_text(json_object_array_get_idx(vms, i), "vm")[0];
    if (!fine)
        return fail(client, -EIO, "%s: its /api/v1/vms is not what kvmstatd gives",
                    client->options.address);
    *ret_vms = vms;
    *ret_json = steal_ptr(&json);
    return 0;
}

/* --- members --- */

static json_object *member(json_object *object, const char *key)
{
    json_object *value = NULL;
    if (!json_object_is_type(object, json_type_object))
        return NULL;
    (void)json_object_object_get_ex(object, key, &value);
    return value;
}

const char *json_text(json_object *object, const char *key)
{
    json_object *value = member(object, key);
    return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";
}

int64_t json_i64(json_object *object, const char *key, int64_t otherwise)
{
    json_object *value = member(object, key);
    return json_object_is_type(value, json_type_int) ? json_object_get_int64(value) : otherwise;
}

double json_number(json_object *object, const char *key, double otherwise)
{
    json_object *value = member(object, key);
    return json_object_is_type(value, json_type_int) || json_object_is_type(value, json_type_double)
               ? json_object_get_double(value)
               : otherwise;
}

json_object *json_array(json_object *object, const char *key)
{
    json_object *value = member(object, key);
    return json_object_is_type(value, json_type_array) ? value : NULL;
}
