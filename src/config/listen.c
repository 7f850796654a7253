/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses to listen on. Names of hosts are only checked for their form: what they mean is asked
 * when the socket opens.
 */
#include <arpa/inet.h>
#include <string.h>
#include <sys/un.h>

#include "values.h"
#include "words.h"

enum {
    HOST_MAX_BYTES = 253, /* RFC 1035, in its textual form */
    PORT_DIGITS = 5,
};

static int read_port(const char *text, uint16_t *ret_port)
{
    unsigned long port;
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > PORT_DIGITS || text[digits] != '\0')
        return -EINVAL;
    port = strtoul(text, NULL, 10);
    if (port > UINT16_MAX)
        return -EINVAL;
    *ret_port = (uint16_t)port;
    return 0;
}

static bool is_host_name(const char *host, size_t len)
{
    struct in_addr v4;
    char copy[HOST_MAX_BYTES + 1];
    if (len > HOST_MAX_BYTES)
        return false;
    memcpy(copy, host, len);
    copy[len] = '\0';
    if (strspn(copy, "0123456789.") == len)
        return len == 0 || inet_pton(AF_INET, copy, &v4) == 1;
    return copy[0] != '-' && copy[0] != '.' &&
           strspn(copy, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == len;
}

static int read_unix(const char *text, const char *path, struct listen_address *ret_address,
                     struct config_error *ret_reason)
{
    size_t max = sizeof((struct sockaddr_un *)NULL)->sun_path - 1;
    if (path[0] != '/' || path[1] == '\0')
        return reason_set(ret_reason,
                          "%s does not name an absolute path; write for example "
                          "unix:/run/kvmstatd/metrics.sock",
                          quoted(text).text);
    if (strlen(path) > max)
        return reason_set(ret_reason,
                          "the path of %s has %zu bytes; a Unix socket's has at most %zu",
                          quoted(text).text, strlen(path), max);
    ret_address->is_unix = true;
    strcpy(ret_address->host, path);
    return 0;
}

static int read_v6(const char *text, struct listen_address *ret_address,
                   struct config_error *ret_reason)
{
    const char *end = strchr(text, ']');
    struct in6_addr v6;
    if (!end || end[1] != ':' || (size_t)(end - text) >= sizeof ret_address->host)
        return reason_set(ret_reason, "%s is not [ADDRESS]:PORT; write for example [::1]:10177",
                          quoted(text).text);
    memcpy(ret_address->host, text + 1, (size_t)(end - text) - 1);
    if (inet_pton(AF_INET6, ret_address->host, &v6) != 1)
        return reason_set(ret_reason,
                          "%s holds no IPv6 address between the brackets; write for example "
                          "[::1]:10177",
                          quoted(text).text);
    if (read_port(end + 2, &ret_address->port) < 0)
        return reason_set(ret_reason, "%s has no port of 0 to 65535; write for example [::1]:10177",
                          quoted(text).text);
    ret_address->is_v6 = true;
    return 0;
}

static int read_host_port(const char *text, struct listen_address *ret_address,
                          struct config_error *ret_reason)
{
    const char *colon = strrchr(text, ':');
    struct in6_addr v6;
    if (strchr(text, '/'))
        return reason_set(ret_reason,
                          "%s is not an address; write HOST:PORT alone, for example "
                          "127.0.0.1:10177, or unix:PATH",
                          quoted(text).text);
    if (inet_pton(AF_INET6, text, &v6) == 1 || (colon && memchr(text, ':', (size_t)(colon - text))))
        return reason_set(ret_reason,
                          "%s has too many colons; write an IPv6 address in brackets, "
                          "for example [::1]:10177",
                          quoted(text).text);
    if (!colon || read_port(colon + 1, &ret_address->port) < 0)
        return reason_set(ret_reason,
                          "%s has no port of 0 to 65535; write HOST:PORT, for example "
                          "127.0.0.1:10177",
                          quoted(text).text);
    if (!is_host_name(text, (size_t)(colon - text)))
        return reason_set(ret_reason,
                          "%s does not begin with a host; write for example "
                          "127.0.0.1:10177, or :10177 for every address",
                          quoted(text).text);
    memcpy(ret_address->host, text, (size_t)(colon - text));
    return 0;
}

int config_parse_listen(const char *text, struct listen_address *ret_address,
                        struct config_error *ret_error)
{
    static const char unix_prefix[] = "unix:";
    struct listen_address address = {0};
    int r;
    if (strncmp(text, unix_prefix, strlen(unix_prefix)) == 0)
        r = read_unix(text, text + strlen(unix_prefix), &address, ret_error);
    else if (text[0] == '[')
        r = read_v6(text, &address, ret_error);
    else
        r = read_host_port(text, &address, ret_error);
    if (r == 0)
        *ret_address = address;
    return r;
}

int check_listen(const char *text, struct config_error *ret_reason)
{
    struct listen_address address;
    return config_parse_listen(text, &address, ret_reason);
}
