/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No demo VM outlives whoever started it.
 */
#pragma once

#include <sys/types.h>

/* From here on this process is killed (SIGKILL) when its parent ends. `parent`: its pid; if that is
 * no longer the parent, the process exits at once. Lasts over execve(). */
void parent_follow(pid_t parent);
