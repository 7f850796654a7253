/* SPDX-License-Identifier: Apache-2.0 */
/* A VMM may write what it likes into its command line. */
#include <stdint.h>
#include <string.h>

#include "identity/stack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct identity_stack *const stacks[] = {&identity_qemu, &identity_demo};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_ARGUMENTS struct arguments arguments = {0};
    if (arguments_split((const char *)data, size, &arguments) < 0)
        return 0;
    if (arguments.n > size)
        __builtin_trap();
    for (size_t i = 0; i < ARRAY_LEN(stacks); i++) {
        CLEANUP_IDENTITY struct identity identity = {0};
        (void)stacks[i]->recognises(arguments.n ? arguments.items[0] : "");
        if (stacks[i]->read_arguments(&arguments, &identity) < 0)
            continue;
        /* What comes out stood inside. */
        if (identity.name && strlen(identity.name) > size)
            __builtin_trap();
        if (identity.uuid && strlen(identity.uuid) > size)
            __builtin_trap();
    }
    return 0;
}
