/* SPDX-License-Identifier: Apache-2.0 */
#include "schema_table.h"

const char *target_source_name(enum target_source source)
{
    static const char *const names[TARGET_SOURCES] = {
        [TARGET_SOURCE_HANDOFF] = "handoff",
        [TARGET_SOURCE_STATSFD] = "statsfd",
        [TARGET_SOURCE_BPF] = "bpf",
    };
    return names[source];
}

const char *target_sources_name(unsigned set)
{
    static const char *const names[1 << TARGET_SOURCES] = {
        "",    "handoff",     "statsfd",     "handoff+statsfd",
        "bpf", "handoff+bpf", "statsfd+bpf", "handoff+statsfd+bpf",
    };
    return names[set];
}

void schema_table_init(struct schema_table *table)
{
    atomic_init(&table->count, 0);
    (void)pthread_mutex_init(&table->lock, NULL);
}

void schema_table_deinit(struct schema_table *table)
{
    unsigned n = atomic_load(&table->count);
    for (unsigned i = 0; i < n; i++)
        kvmstats_schema_free(table->entries[i].decoded);
    atomic_store(&table->count, 0);
    (void)pthread_mutex_destroy(&table->lock);
}

/* Also compares where the data stands in the file: kvmstats_schema_equal() is about its inside. */
static bool entry_matches(const struct schema *entry, enum scope scope,
                          const struct kvmstats_schema *decoded)
{
    return entry->scope == scope && entry->data_offset == kvmstats_schema_data_offset(decoded) &&
           kvmstats_schema_equal(entry->decoded, decoded);
}

int schema_table_intern(struct schema_table *table, enum scope scope,
                        struct kvmstats_schema *decoded, const struct schema **ret_schema)
{
    int r = 0;
    (void)pthread_mutex_lock(&table->lock);
    unsigned n = atomic_load_explicit(&table->count, memory_order_relaxed);
    unsigned i = 0;
    while (i < n && !entry_matches(&table->entries[i], scope, decoded))
        i++;
    if (i < n) {
        kvmstats_schema_free(decoded);
    } else if (n == SCHEMAS_MAX) {
        kvmstats_schema_free(decoded);
        r = -ENOSPC;
    } else {
        table->entries[n] = (struct schema){
            .index = n,
            .scope = scope,
            .decoded = decoded,
            .data_offset = kvmstats_schema_data_offset(decoded),
            .data_bytes = (uint32_t)kvmstats_schema_data_bytes(decoded),
        };
        atomic_store_explicit(&table->count, n + 1, memory_order_release);
    }
    (void)pthread_mutex_unlock(&table->lock);
    if (r == 0)
        *ret_schema = &table->entries[i];
    return r;
}
