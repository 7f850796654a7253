/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watchdog is not fed by a timer: a timer goes on when the sampler hangs. The sampler is asked,
 * and its answer to the last question is what the watchdog gets. Four questions in a watchdog's
 * time, so that an answer that is just too late for one of them costs nothing.
 */
#include "service.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include "clock.h"

enum {
    BEATS_PER_WATCHDOG = 4,
    STATUS_EVERY_MS = 1000,
    MESSAGE_BYTES = 192,
    IMPORTANT_WAITS_MS = 2000,
};

/*
 * sd_notify(3) waits for as long as the other side does not read, and signals are handled by the
 * thread that would wait here: a supervisor that hangs, or has forgotten us, would keep us from
 * stopping. So what is important waits for a moment, everything else not at all.
 */
PRINTF_LIKE(2, 3)
static int tell(int wait_ms, const char *format, ...)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char text[MESSAGE_BYTES];
    va_list args;
    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) > sizeof address.sun_path)
        return 0;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);

    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    const struct timeval patience = {.tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000};
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    ssize_t n = sendto(fd, text, strlen(text), MSG_NOSIGNAL | (wait_ms ? 0 : MSG_DONTWAIT),
                       (const struct sockaddr *)&address, len);
    return n < 0 ? -errno : 0;
}

int service_take_passed(struct passed_fds *ret_passed)
{
    char **names = NULL;
    int n = sd_listen_fds_with_names(1, &names);
    if (n <= 0)
        return n;
    struct passed_fd *fds = calloc((size_t)n, sizeof *fds);
    for (int i = 0; fds && i < n; i++)
        fds[i] = (struct passed_fd){.fd = SD_LISTEN_FDS_START + i, .name = names[i]};
    for (int i = 0; !fds && i < n; i++)
        free(names[i]);
    free(names);
    if (!fds)
        return -ENOMEM;
    *ret_passed = (struct passed_fds){.n = (size_t)n, .fds = fds};
    return 0;
}

void service_init(struct service *service)
{
    uint64_t watchdog_us = 0;
    *service = (struct service){.beat_due_ns = INT64_MAX, .status_due_ns = INT64_MAX};
    if (!getenv("NOTIFY_SOCKET"))
        return;
    service->status_due_ns = 0;
    if (sd_watchdog_enabled(0, &watchdog_us) > 0 && watchdog_us < INT64_MAX / NSEC_PER_USEC) {
        service->beat_ns = (int64_t)watchdog_us * NSEC_PER_USEC / BEATS_PER_WATCHDOG;
        service->beat_due_ns = 0;
    }
}

void service_ready(struct service *service)
{
    service->ready_owed = tell(IMPORTANT_WAITS_MS, "READY=1") == -EAGAIN;
}

void service_reloading(void)
{
    /* MONOTONIC_USEC is what Type=notify-reload of newer systemd wants; older ones ignore it. */
    (void)tell(IMPORTANT_WAITS_MS, "RELOADING=1\nMONOTONIC_USEC=%lld",
               (long long)(clock_now_ns() / NSEC_PER_USEC));
}

void service_stopping(void)
{
    (void)tell(IMPORTANT_WAITS_MS, "STOPPING=1");
}

int64_t service_due_ns(const struct service *service)
{
    return MIN_OF(service->beat_due_ns, service->status_due_ns);
}

static void tell_status(struct service *service, const struct service_source *source)
{
    char status[sizeof service->status];
    source->describe(source->ctx, status, sizeof status);
    if (strcmp(status, service->status) == 0)
        return;
    if (tell(0, "STATUS=%s", status) != -EAGAIN)
        (void)snprintf(service->status, sizeof service->status, "%s", status);
}

void service_tend(struct service *service, const struct service_source *source)
{
    int64_t now_ns = clock_now_ns();
    if (now_ns >= service->beat_due_ns) {
        bool first = service->beat_due_ns == 0;
        if (!first && source->answered(source->ctx))
            (void)tell(0, "WATCHDOG=1");
        source->ask(source->ctx);
        service->beat_due_ns = now_ns + service->beat_ns;
    }
    if (now_ns >= service->status_due_ns) {
        if (service->ready_owed)
            service->ready_owed = tell(0, "READY=1") == -EAGAIN;
        tell_status(service, source);
        service->status_due_ns = now_ns + STATUS_EVERY_MS * NSEC_PER_MSEC;
    }
}
