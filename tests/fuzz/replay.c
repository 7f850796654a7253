/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replays a corpus through a fuzz target as an ordinary test: every file once, then every prefix of
 * the small ones. Prints TAP. A crash is the failure.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    PREFIXES_UP_TO = 4096, /* bytes: files larger than this are replayed whole only */
};

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return -1;
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    /* Exactly as large as the input, so that the address sanitizer sees a read past its end. */
    uint8_t *bytes = malloc(size > 0 ? (size_t)size : 1);
    size_t n = bytes ? fread(bytes, 1, (size_t)size, f) : 0;
    fclose(f);
    LLVMFuzzerTestOneInput(bytes, n);
    for (size_t i = 0; n <= PREFIXES_UP_TO && i < n; i++) {
        uint8_t *prefix = malloc(i ? i : 1);
        memcpy(prefix, bytes, i);
        LLVMFuzzerTestOneInput(prefix, i);
        free(prefix);
    }
    free(bytes);
    return 0;
}

int main(int argc, char **argv)
{
    unsigned n = 0, failed = 0;
    struct dirent *entry;
    DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
    if (!dir) {
        printf("not ok 1 - no corpus\n1..1\n");
        return EXIT_FAILURE;
    }
    while ((entry = readdir(dir))) {
        char path[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", argv[1], entry->d_name);
        n++;
        if (replay_file(path) < 0) {
            failed++;
            printf("not ok %u - %s\n", n, entry->d_name);
        } else {
            printf("ok %u - %s\n", n, entry->d_name);
        }
    }
    closedir(dir);
    if (!n) {
        printf("not ok 1 - empty corpus\n");
        failed = n = 1;
    }
    printf("1..%u\n", n);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
