/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page at "/", for a person who came to the port to see what it is: one small HTML file that
 * loads nothing and runs nothing.
 */
#include "answer.h"

enum {
    /* Rows of the table of VMs that cannot be read; the rest is in /api/v1/vms. */
    PAGE_ROWS_MAX = 100,
};

static const char head[] =
    "<!DOCTYPE html>\n"
    "<html lang=\"en\">\n"
    "<head>\n"
    "<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<meta name=\"color-scheme\" content=\"light dark\">\n"
    "<title>kvmstatd</title>\n"
    "<style>\n"
    ":root { color-scheme: light dark; }\n"
    "body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; "
    "padding: 0 1rem; }\n"
    "table { border-collapse: collapse; width: 100%; }\n"
    "th, td { text-align: left; vertical-align: top; padding: .25rem 1rem .25rem 0; "
    "border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent); "
    "overflow-wrap: anywhere; }\n"
    "</style>\n"
    "</head>\n"
    "<body>\n";

static const char links[] =
    "<ul>\n"
    "<li><a href=\"/metrics\">/metrics</a>: for Prometheus</li>\n"
    "<li><a href=\"/api/v1/vms\">/api/v1/vms</a>: every VM known, how it is read, or why it is "
    "not</li>\n"
    "<li><a href=\"/-/healthy\">/-/healthy</a> and <a href=\"/-/ready\">/-/ready</a>: probes</li>\n"
    "</ul>\n";

static void put_escaped(struct buffer *to, const char *text)
{
    for (;;) {
        size_t plain = strcspn(text, "&<>\"'");
        buffer_put(to, text, plain);
        text += plain;
        if (!*text)
            return;
        buffer_printf(to, "&#%d;", *text++);
    }
}

static void put_cell(struct buffer *to, const char *text)
{
    buffer_puts(to, "<td>");
    put_escaped(to, text);
    buffer_puts(to, "</td>");
}

static bool is_unreadable(const struct roster_vm *vm)
{
    return vm->reason != UNREADABLE_NOT && vm->reason != UNREADABLE_DISABLED;
}

static size_t count_unreadable(const struct roster *roster)
{
    size_t n = 0;
    for (size_t i = 0; i < roster->n_vms; i++)
        n += is_unreadable(&roster->vms[i]);
    return n;
}

static void put_counts(struct buffer *to, const struct roster *roster, size_t n_unreadable)
{
    buffer_printf(to, "<p>Reading <strong>%u</strong> VM%s", roster->read,
                  roster->read == 1 ? "" : "s");
    if (n_unreadable)
        buffer_printf(to, "; <strong>%zu</strong> cannot be read", n_unreadable);
    if (roster->unreadable[UNREADABLE_DISABLED])
        buffer_printf(to, "; %u switched off by the configuration",
                      roster->unreadable[UNREADABLE_DISABLED]);
    if (roster->kernel_vms >= 0)
        buffer_printf(to, ". By the kernel's word %lld are alive", (long long)roster->kernel_vms);
    buffer_puts(to, ".</p>\n");
}

static void put_unreadable(struct buffer *to, const struct roster *roster, size_t n_unreadable)
{
    size_t rows = 0;
    buffer_puts(to, "<h2>VMs that cannot be read</h2>\n"
                    "<table>\n<thead><tr><th>VM</th><th>VMM</th><th>PID</th><th>Reason</th>"
                    "<th>What would help</th></tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < roster->n_vms && rows < PAGE_ROWS_MAX; i++) {
        const struct roster_vm *vm = &roster->vms[i];
        if (!is_unreadable(vm))
            continue;
        rows++;
        buffer_puts(to, "<tr>");
        put_cell(to, vm->vm);
        put_cell(to, vm->vmm);
        buffer_printf(to, "<td>%d</td>", (int)vm->pid);
        put_cell(to, roster_reason_name(vm->reason));
        put_cell(to, vm->detail);
        buffer_puts(to, "</tr>\n");
    }
    buffer_puts(to, "</tbody>\n</table>\n");
    if (rows < n_unreadable)
        buffer_printf(to, "<p>… and %zu more: see <a href=\"/api/v1/vms\">/api/v1/vms</a>.</p>\n",
                      n_unreadable - rows);
}

void page_answer(struct site *site, const struct request *request, struct answer *answer)
{
    CLEANUP(cleanup_roster_unref) struct roster *roster = roster_get(&site->store->roster);
    CLEANUP(cleanup_body_free) struct body *body = NULL;
    int r = body_new(&site->quota, &body);
    if (r == 0) {
        struct buffer *to = &body->buffer;
        buffer_puts(to, head);
        buffer_puts(to, "<h1>kvmstatd</h1>\n<p>Version ");
        put_escaped(to, site->version);
        buffer_puts(to, ". Samples the statistics that KVM keeps of every virtual machine on this "
                        "host, many times a second.</p>\n");
        if (roster) {
            size_t n_unreadable = count_unreadable(roster);
            put_counts(to, roster, n_unreadable);
            buffer_puts(to, links);
            if (n_unreadable)
                put_unreadable(to, roster, n_unreadable);
        } else {
            buffer_puts(to, "<p>The first look for VMs is not done yet.</p>\n");
            buffer_puts(to, links);
        }
        buffer_puts(to, "</body>\n</html>\n");
        r = body_account(body);
    }
    if (r < 0) {
        answer_error(answer, request->path, r);
        return;
    }
    answer_body(answer, "text/html; charset=utf-8", steal_ptr(&body));
    answer->html = true;
}
