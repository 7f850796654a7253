/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's own words for types, units and bases (Documentation/virt/kvm/api.rst), for people.
 */
#include "kvmstats/kvmstats.h"

#define LOOKUP(table, i) ((i) < sizeof(table) / sizeof((table)[0]) ? (table)[i] : NULL)

static const char *const type_names[] = {
    [KVMSTATS_TYPE_CUMULATIVE] = "cumulative",
    [KVMSTATS_TYPE_INSTANT] = "instant",
    [KVMSTATS_TYPE_PEAK] = "peak",
    [KVMSTATS_TYPE_LINEAR_HIST] = "linear_hist",
    [KVMSTATS_TYPE_LOG_HIST] = "log_hist",
};

static const char *const unit_names[] = {
    [KVMSTATS_UNIT_NONE] = "none",       [KVMSTATS_UNIT_BYTES] = "bytes",
    [KVMSTATS_UNIT_SECONDS] = "seconds", [KVMSTATS_UNIT_CYCLES] = "cycles",
    [KVMSTATS_UNIT_BOOLEAN] = "boolean",
};

static const char *const base_names[] = {
    [KVMSTATS_BASE_POW10] = "pow10",
    [KVMSTATS_BASE_POW2] = "pow2",
};

const char *kvmstats_type_name(uint8_t type)
{
    return LOOKUP(type_names, type);
}

const char *kvmstats_unit_name(uint8_t unit)
{
    return LOOKUP(unit_names, unit);
}

const char *kvmstats_base_name(uint8_t base)
{
    return LOOKUP(base_names, base);
}
