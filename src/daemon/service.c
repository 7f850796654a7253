/* SPDX-License-Identifier: Apache-2.0 */
#include "service.h"

#include <systemd/sd-daemon.h>

#include "clock.h"

void service_ready(void)
{
    (void)sd_notify(0, "READY=1");
}

void service_reloading(void)
{
    /* MONOTONIC_USEC is what Type=notify-reload of newer systemd wants; older ones ignore it. */
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld",
                     (long long)(clock_now_ns() / NSEC_PER_USEC));
}

void service_stopping(void)
{
    (void)sd_notify(0, "STOPPING=1");
}
