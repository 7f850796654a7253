/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libsystemd's sd_pid_get_unit() answers for the real /proc alone, so recorded trees could not be
 * tested by it; this follows its rules on the text instead. The unit is the first component of the
 * path that is no slice. What stands below is the unit's own to make (delegation), so a VMM that
 * makes a group "machine-qemu\x2d9\x2dother.scope" in its own is not taken for another.
 *
 * It differs where libsystemd fails: seen from a container, a path that lies outside of the
 * container's own group begins with "/..".
 */
#include "cgroup.h"

#include <stdbool.h>
#include <string.h>

enum {
    UNIT_BYTES_MAX =
        255, /* systemd's UNIT_NAME_MAX less the NUL; a directory's name is no longer */
};

/* A component of a path. */
struct piece {
    const char *start;
    size_t len;
};

void cgroup_free(struct cgroup *cgroup)
{
    free(cgroup->slice);
    free(cgroup->unit);
    free(cgroup->machine);
    *cgroup = (struct cgroup){0};
}

static int replace(char **field, const char *bytes, size_t len)
{
    char *copy = strndup(bytes, len);
    if (!copy)
        return -ENOMEM;
    free(*field);
    *field = copy;
    return 0;
}

/* Takes the next component off *path; false at its end. */
static bool next_piece(struct piece *path, struct piece *ret_piece)
{
    while (path->len && *path->start == '/') {
        path->start++;
        path->len--;
    }
    if (!path->len)
        return false;
    const char *slash = memchr(path->start, '/', path->len);
    ret_piece->start = path->start;
    ret_piece->len = slash ? (size_t)(slash - path->start) : path->len;
    path->start += ret_piece->len;
    path->len -= ret_piece->len;
    /* systemd and libvirt put "_" before a name that the kernel could take for a file of its own.
     */
    if (*ret_piece->start == '_') {
        ret_piece->start++;
        ret_piece->len--;
    }
    return true;
}

static bool ends_with(struct piece piece, const char *end)
{
    size_t len = strlen(end);
    return piece.len > len && memcmp(piece.start + piece.len - len, end, len) == 0;
}

/* systemd's rule for a unit's name; of the types those that own a group. */
static bool is_unit(struct piece piece)
{
    static const char *const types[] = {".scope",  ".service", ".slice",
                                        ".socket", ".mount",   ".swap"};
    static const char allowed[] = "0123456789abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ:-_.\\@";
    if (piece.len > UNIT_BYTES_MAX || *piece.start == '@')
        return false;
    for (size_t i = 0; i < piece.len; i++) {
        if (!memchr(allowed, piece.start[i], sizeof allowed - 1))
            return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (ends_with(piece, types[i]))
            return true;
    }
    return false;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/*
 * Undoes systemd's escaping (\xHH; "-" for "/") into `to`, which has room for piece.len + 1. False
 * for what systemd would not have written: a broken escape, a NUL, or the slash that no machine's
 * name may hold.
 */
static bool unescape(struct piece piece, char *to)
{
    for (size_t i = 0; i < piece.len; i++) {
        char c = piece.start[i];
        if (c == '-')
            return false;
        if (c == '\\') {
            if (piece.len - i < 4 || piece.start[i + 1] != 'x')
                return false;
            int high = hex_digit(piece.start[i + 2]), low = hex_digit(piece.start[i + 3]);
            if (high < 0 || low < 0)
                return false;
            c = (char)(high << 4 | low);
            if (c == '\0' || c == '/')
                return false;
            i += 3;
        }
        *to++ = c;
    }
    *to = '\0';
    return true;
}

/* systemd-machined's scope: machine-NAME.scope. */
static int machine_by_unit(struct piece unit, struct cgroup *cgroup)
{
    static const char head[] = "machine-", tail[] = ".scope";
    size_t around = sizeof head - 1 + sizeof tail - 1;
    char name[UNIT_BYTES_MAX + 1];

    if (unit.len <= around || memcmp(unit.start, head, sizeof head - 1) != 0 ||
        !ends_with(unit, tail))
        return 0;
    struct piece escaped = {unit.start + sizeof head - 1, unit.len - around};
    return unescape(escaped, name) ? replace(&cgroup->machine, name, strlen(name)) : 0;
}

/* libvirt's own group where there is no systemd: NAME.libvirt-DRIVER, in partitions of its own. */
static int machine_by_libvirt(struct piece path, struct cgroup *cgroup)
{
    static const char *const tails[] = {".libvirt-qemu", ".libvirt-ch"};
    struct piece piece;
    while (next_piece(&path, &piece)) {
        for (size_t i = 0; i < ARRAY_LEN(tails); i++) {
            if (ends_with(piece, tails[i]))
                return replace(&cgroup->machine, piece.start, piece.len - strlen(tails[i]));
        }
    }
    return 0;
}

/* What one path says, as far as the paths before it have not said so. */
static int read_path(struct piece path, struct cgroup *cgroup)
{
    struct piece whole = path, piece, slice = {"", 0};
    bool has_unit = false;
    int r = 0;

    while (!has_unit && next_piece(&path, &piece)) {
        if (piece.len == 2 && memcmp(piece.start, "..", 2) == 0)
            continue;
        if (!is_unit(piece))
            break;
        has_unit = !ends_with(piece, ".slice");
        if (!has_unit)
            slice = piece;
    }
    if (has_unit && !*cgroup->unit) {
        r = replace(&cgroup->unit, piece.start, piece.len);
        if (r == 0)
            r = replace(&cgroup->slice, slice.start, slice.len);
    }
    if (r == 0 && !*cgroup->machine)
        r = has_unit ? machine_by_unit(piece, cgroup) : machine_by_libvirt(whole, cgroup);
    return r;
}

/*
 * The line's rank: systemd's own v1 hierarchy, then v2, which is systemd's where there is no such
 * line, then the controllers of v1, where a libvirt without systemd has its groups. -1: no line.
 */
static int take_line(const char *line, size_t len, struct piece *ret_path)
{
    const char *controllers = memchr(line, ':', len);
    if (!controllers)
        return -1;
    controllers++;
    const char *path = memchr(controllers, ':', len - (size_t)(controllers - line));
    if (!path)
        return -1;
    *ret_path = (struct piece){path + 1, len - (size_t)(path + 1 - line)};
    /* The kernel says so of a group whose last process is about to go. */
    static const char deleted[] = " (deleted)";
    if (ends_with(*ret_path, deleted))
        ret_path->len -= sizeof deleted - 1;
    size_t controllers_len = (size_t)(path - controllers);
    if (controllers_len == 12 && memcmp(controllers, "name=systemd", 12) == 0)
        return 0;
    return controllers_len == 0 ? 1 : 2;
}

int cgroup_parse(const char *text, struct cgroup *ret_cgroup)
{
    CLEANUP_CGROUP struct cgroup cgroup = {strdup(""), strdup(""), strdup("")};
    if (!cgroup.slice || !cgroup.unit || !cgroup.machine)
        return -ENOMEM;
    for (int rank = 0; rank <= 2; rank++) {
        for (const char *line = text; *line;) {
            const char *end = strchrnul(line, '\n');
            struct piece path;
            if (take_line(line, (size_t)(end - line), &path) == rank) {
                int r = read_path(path, &cgroup);
                if (r < 0)
                    return r;
            }
            line = *end ? end + 1 : end;
        }
    }
    *ret_cgroup = cgroup;
    cgroup = (struct cgroup){0};
    return 0;
}
