/* SPDX-License-Identifier: Apache-2.0 */
/* What systemd is told; without systemd (no NOTIFY_SOCKET) all of it does nothing. */
#pragma once

void service_ready(void);
void service_reloading(void);
void service_stopping(void);
