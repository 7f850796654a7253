/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content negotiation (RFC 9110, 12.5). For each format we look for the most specific range that
 * covers it; that range's q counts for it, so a generous wildcard never outdoes what a client says
 * of the type itself. A format the client names is preferred to one that only a wildcard covers: a
 * client that names none is a browser or curl and gets plain text. No wildcard covers protobuf: who
 * does not name it cannot read it. Prometheus 2.49.0 gives its wildcard q=2: q is clamped to 1.
 * What cannot be parsed is skipped up to the next comma.
 */
#include "exposition.h"

#include <strings.h>

struct slice {
    const char *at;
    size_t len;
};

/* How closely a range describes a format. */
enum specificity {
    SPECIFICITY_NONE,
    SPECIFICITY_ANY,     /* any type at all */
    SPECIFICITY_ANY_OF,  /* any of the type, as in text/… */
    SPECIFICITY_OLDER,   /* the type, in an older version that ours is read as */
    SPECIFICITY_TYPE,    /* the type, no version */
    SPECIFICITY_VERSION, /* the type in our version */
};

struct preference {
    enum specificity specificity;
    unsigned q; /* thousandths */
};

enum {
    Q_MAX = 1000,
};

/* One element of a list header: TOKEN[/TOKEN][;name=value]… */
struct element {
    struct slice type, subtype; /* subtype.len 0: there is no slash */
    struct slice version;       /* parameters; len 0: none */
    struct slice proto, encoding;
    unsigned q;
};

static bool slice_is(struct slice s, const char *text)
{
    return s.len == strlen(text) && strncasecmp(s.at, text, s.len) == 0;
}

static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static const char *skip_space(const char *p)
{
    return p + strspn(p, " \t");
}

static struct slice take_token(const char **p)
{
    struct slice token = {.at = *p};
    while (is_token_char(**p))
        (*p)++;
    token.len = (size_t)(*p - token.at);
    return token;
}

/* A token or a quoted string (without its quotes, escapes left as they are). */
static bool take_value(const char **p, struct slice *ret_value)
{
    if (**p != '"') {
        *ret_value = take_token(p);
        return ret_value->len > 0;
    }
    const char *begin = ++*p;
    while (**p && **p != '"') {
        if (**p == '\\' && (*p)[1])
            (*p)++;
        (*p)++;
    }
    if (**p != '"')
        return false;
    *ret_value = (struct slice){begin, (size_t)(*p - begin)};
    (*p)++;
    return true;
}

/* "0.75" in thousandths, more than 1 is 1. */
static bool parse_q(struct slice s, unsigned *ret_q)
{
    unsigned q = 0, worth = Q_MAX / 10;
    bool fraction = false, digits = false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.at[i];
        if (c == '.' && !fraction) {
            fraction = true;
        } else if (c >= '0' && c <= '9') {
            digits = true;
            if (!fraction) {
                q = MIN_OF(q * 10 + (unsigned)(c - '0') * Q_MAX, 10u * Q_MAX);
            } else {
                q += (unsigned)(c - '0') * worth;
                worth /= 10;
            }
        } else {
            return false;
        }
    }
    *ret_q = MIN_OF(q, (unsigned)Q_MAX);
    return digits;
}

static bool take_parameters(const char **p, struct element *e)
{
    for (;;) {
        struct slice value, name;
        *p = skip_space(*p);
        if (**p != ';')
            return **p == '\0' || **p == ',';
        *p = skip_space(*p + 1);
        if (**p == '\0' || **p == ',' || **p == ';')
            continue;
        name = take_token(p);
        *p = skip_space(*p);
        if (name.len == 0 || **p != '=')
            return false;
        *p = skip_space(*p + 1);
        if (!take_value(p, &value))
            return false;
        if (slice_is(name, "q") && !parse_q(value, &e->q))
            return false;
        if (slice_is(name, "version"))
            e->version = value;
        if (slice_is(name, "proto"))
            e->proto = value;
        if (slice_is(name, "encoding"))
            e->encoding = value;
    }
}

static bool take_element(const char **p, struct element *e)
{
    *e = (struct element){.q = Q_MAX};
    e->type = take_token(p);
    if (e->type.len == 0)
        return false;
    if (**p == '/') {
        (*p)++;
        e->subtype = take_token(p);
        if (e->subtype.len == 0)
            return false;
    }
    return take_parameters(p, e);
}

/* Past the next comma that is not inside quotes. */
static const char *skip_element(const char *p)
{
    struct slice quoted;
    while (*p && *p != ',') {
        if (*p != '"')
            p++;
        else if (!take_value(&p, &quoted))
            return p; /* never closed: nothing after it can be trusted */
    }
    return p;
}

/* The next well-formed element; false at the end. */
static bool next_element(const char **p, struct element *e)
{
    for (;;) {
        *p += strspn(*p, " \t,");
        if (**p == '\0')
            return false;
        const char *begin = *p;
        if (take_element(p, e))
            return true;
        *p = skip_element(begin);
    }
}

static void prefer(struct preference *preference, enum specificity specificity, unsigned q)
{
    if (specificity > preference->specificity ||
        (specificity == preference->specificity && q > preference->q))
        *preference = (struct preference){specificity, q};
}

static enum specificity cover(const struct element *e, const char *type, const char *subtype,
                              const char *version, const char *older)
{
    if (slice_is(e->type, "*") && slice_is(e->subtype, "*"))
        return SPECIFICITY_ANY;
    if (!slice_is(e->type, type))
        return SPECIFICITY_NONE;
    if (slice_is(e->subtype, "*"))
        return SPECIFICITY_ANY_OF;
    if (!slice_is(e->subtype, subtype))
        return SPECIFICITY_NONE;
    if (e->version.len == 0)
        return SPECIFICITY_TYPE;
    if (slice_is(e->version, version))
        return SPECIFICITY_VERSION;
    return older && slice_is(e->version, older) ? SPECIFICITY_OLDER : SPECIFICITY_NONE;
}

/* There are other messages and other ways to put them one after another; we have this. */
static enum specificity cover_protobuf(const struct element *e)
{
    bool ours = slice_is(e->type, "application") && slice_is(e->subtype, "vnd.google.protobuf") &&
                slice_is(e->proto, "io.prometheus.client.MetricFamily") &&
                slice_is(e->encoding, "delimited");
    return ours ? SPECIFICITY_VERSION : SPECIFICITY_NONE;
}

static bool is_named(const struct preference *p)
{
    return p->specificity >= SPECIFICITY_OLDER;
}

/*
 * Whether a client would rather have `a` than `b`. Of formats that it names and likes as much, it
 * gets the one that says more: the higher one. Of those that only wildcards cover, plain text.
 */
static bool is_better(const struct preference *prefs, enum exposition_format a,
                      enum exposition_format b)
{
    const struct preference *x = &prefs[a], *y = &prefs[b];
    if (x->specificity == SPECIFICITY_NONE || x->q == 0)
        return false;
    if (y->specificity == SPECIFICITY_NONE || y->q == 0)
        return true;
    if (is_named(x) != is_named(y))
        return is_named(x);
    if (x->q != y->q)
        return x->q > y->q;
    return is_named(x) && a > b;
}

enum exposition_format exposition_negotiate(const char *accept)
{
    struct preference prefs[EXPOSITION_PROTOBUF + 1] = {0};
    enum exposition_format best = EXPOSITION_TEXT;
    struct element e;
    if (!accept)
        return EXPOSITION_TEXT;
    while (next_element(&accept, &e)) {
        prefer(&prefs[EXPOSITION_TEXT], cover(&e, "text", "plain", "0.0.4", NULL), e.q);
        prefer(&prefs[EXPOSITION_OPENMETRICS],
               cover(&e, "application", "openmetrics-text", "1.0.0", "0.0.1"), e.q);
        prefer(&prefs[EXPOSITION_PROTOBUF], cover_protobuf(&e), e.q);
    }
    for (enum exposition_format f = EXPOSITION_TEXT + 1; f <= EXPOSITION_PROTOBUF; f++) {
        if (is_better(prefs, f, best))
            best = f;
    }
    return best;
}

bool exposition_accepts_gzip(const char *accept_encoding)
{
    struct preference gzip = {0};
    struct element e;
    if (!accept_encoding)
        return false;
    while (next_element(&accept_encoding, &e)) {
        if (e.subtype.len)
            continue;
        if (slice_is(e.type, "gzip") || slice_is(e.type, "x-gzip"))
            prefer(&gzip, SPECIFICITY_TYPE, e.q);
        else if (slice_is(e.type, "*"))
            prefer(&gzip, SPECIFICITY_ANY, e.q);
    }
    return gzip.q > 0;
}
