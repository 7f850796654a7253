/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "exposition.h"
#include "suites.h"

#define PROTOBUF \
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

static const struct {
    const char *accept;
    enum exposition_format format;
} accepts[] = {
    /* What real clients send. */
    {NULL, EXPOSITION_TEXT},
    {"", EXPOSITION_TEXT},
    {"*/*", EXPOSITION_TEXT}, /* curl */
    /* Firefox, Chrome */
    {"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
     EXPOSITION_TEXT},
    {"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;"
     "q=0.8,application/signed-exchange;v=b3;q=0.7",
     EXPOSITION_TEXT},
    /* Prometheus 2.42 */
    {"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
     "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
     EXPOSITION_OPENMETRICS},
    /* 2.42 with native histograms: protobuf first */
    {"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
     "application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;"
     "q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
     EXPOSITION_PROTOBUF},
    /* 2.49.0 */
    {"application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;"
     "q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=2",
     EXPOSITION_OPENMETRICS},
    /* 3.x */
    {"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
     "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;"
     "escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
     EXPOSITION_OPENMETRICS},
    /* 3.x with native histograms */
    {PROTOBUF ";q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
              "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;"
              "escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
     EXPOSITION_PROTOBUF},
    /* 3.x, told to scrape protobuf only; and to take it last */
    {PROTOBUF ";q=0.6,*/*;q=0.5", EXPOSITION_PROTOBUF},
    {"application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.6,text/plain;"
     "version=0.0.4;q=0.5," PROTOBUF ";q=0.4,*/*;q=0.3",
     EXPOSITION_OPENMETRICS},
    /* Prometheus 1.x, Telegraf */
    {PROTOBUF ";q=0.7,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", EXPOSITION_PROTOBUF},
    /* 3.x, told to scrape text only */
    {"text/plain;version=0.0.4;q=0.6,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.2",
     EXPOSITION_TEXT},
    /* OpenTelemetry's receiver, Telegraf, VictoriaMetrics */
    {"application/openmetrics-text; version=1.0.0; charset=utf-8", EXPOSITION_OPENMETRICS},
    {"text/plain;version=0.0.4;q=1,*/*;q=0.1", EXPOSITION_TEXT},
    {"text/plain", EXPOSITION_TEXT},

    /* Quality decides between what is named. */
    {"text/plain;q=0.5,application/openmetrics-text;q=0.4", EXPOSITION_TEXT},
    {"text/plain;q=0.4,application/openmetrics-text;q=0.5", EXPOSITION_OPENMETRICS},
    {"text/plain;q=0.499,application/openmetrics-text;q=0.5", EXPOSITION_OPENMETRICS},
    {"text/plain,application/openmetrics-text", EXPOSITION_OPENMETRICS},
    {"text/plain;q=7,application/openmetrics-text;q=0.9", EXPOSITION_TEXT},
    {"text/plain;q=1.000,application/openmetrics-text;q=0.999", EXPOSITION_TEXT},
    {"TEXT/PLAIN;Q=0.5,Application/OpenMetrics-Text;Q=0.4", EXPOSITION_TEXT},
    {" text/plain ; q=0.5 , application/openmetrics-text ; q=0.4 ", EXPOSITION_TEXT},
    {"\ttext/plain\t;\tq=0.4\t,\tapplication/openmetrics-text;q=0.5", EXPOSITION_OPENMETRICS},

    /* q=0 forbids. */
    {"application/openmetrics-text;q=0,*/*", EXPOSITION_TEXT},
    {"text/plain;q=0,*/*", EXPOSITION_OPENMETRICS},
    {"text/plain;q=0.0", EXPOSITION_TEXT},
    {"*/*;q=0,application/openmetrics-text;q=0.1", EXPOSITION_OPENMETRICS},

    /* Wildcards: a type that is named goes before one that is only covered. */
    {"text/plain;q=0.1,*/*;q=2", EXPOSITION_TEXT},
    {"application/openmetrics-text;q=0.1,*/*", EXPOSITION_OPENMETRICS},
    {"application/*", EXPOSITION_OPENMETRICS},
    {"text/*", EXPOSITION_TEXT},
    {"application/*;q=0.2,text/*;q=0.1", EXPOSITION_OPENMETRICS},
    {"application/*;q=0.1,text/*;q=0.2", EXPOSITION_TEXT},
    {"application/*,text/*", EXPOSITION_TEXT},
    {"application/*;q=0,*/*", EXPOSITION_TEXT},
    {"*", EXPOSITION_TEXT},
    {"*/openmetrics-text", EXPOSITION_TEXT},

    /* Versions. */
    {"application/openmetrics-text;version=0.0.1", EXPOSITION_OPENMETRICS},
    {"application/openmetrics-text;version=2.0.0", EXPOSITION_TEXT},
    {"application/openmetrics-text;version=2.0.0,text/plain;q=0.1", EXPOSITION_TEXT},
    {"application/openmetrics-text;version=\"1.0.0\",text/plain;q=0.9", EXPOSITION_OPENMETRICS},
    {"application/openmetrics-text;version=1.0.0;q=0,application/openmetrics-text;version=0.0.1",
     EXPOSITION_TEXT},
    {"text/plain;version=9,application/openmetrics-text;q=0.1", EXPOSITION_OPENMETRICS},

    /* Parameters nobody knows, quotes, commas in quotes. */
    {"application/openmetrics-text;a=b;c=\"d,e;q=0\";q=0.5,text/plain;q=0.4",
     EXPOSITION_OPENMETRICS},
    {"application/openmetrics-text;a=\"\\\",\";q=0.5,text/plain;q=0.4", EXPOSITION_OPENMETRICS},
    {"application/openmetrics-text;q=\"0.3\",text/plain;q=0.4", EXPOSITION_TEXT},
    {"application/openmetrics-text;;q=0.5;,text/plain;q=0.4", EXPOSITION_OPENMETRICS},

    /* Protobuf: only by its name, only this message, only delimited. */
    {PROTOBUF, EXPOSITION_PROTOBUF},
    {"Application/Vnd.Google.Protobuf; Proto=\"io.prometheus.client.MetricFamily\" ; "
     "Encoding=Delimited",
     EXPOSITION_PROTOBUF},
    {"application/vnd.google.protobuf", EXPOSITION_TEXT},
    {"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily", EXPOSITION_TEXT},
    {"application/vnd.google.protobuf;encoding=delimited", EXPOSITION_TEXT},
    {"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
     EXPOSITION_TEXT},
    {"application/vnd.google.protobuf;proto=some.other.Message;encoding=delimited,text/plain;q=0.1",
     EXPOSITION_TEXT},
    {"application/*", EXPOSITION_OPENMETRICS},
    {"application/*,text/plain;q=0", EXPOSITION_OPENMETRICS},
    {PROTOBUF ";q=0,*/*", EXPOSITION_TEXT},
    {PROTOBUF ";q=0.1,*/*", EXPOSITION_PROTOBUF},
    {PROTOBUF ";q=0.1,text/plain;q=0.2", EXPOSITION_TEXT},
    {PROTOBUF ";q=0.2,text/plain;q=0.2,application/openmetrics-text;q=0.2", EXPOSITION_PROTOBUF},
    {PROTOBUF ";q=0.2,text/plain;q=0.3,application/openmetrics-text;q=0.4", EXPOSITION_OPENMETRICS},

    /* What cannot be parsed is skipped, the rest counts. */
    {"application/openmetrics-text;q=abc,text/plain;q=0.1", EXPOSITION_TEXT},
    {"application/openmetrics-text;q=,text/plain;q=0.1", EXPOSITION_TEXT},
    {"application/openmetrics-text;q=-1,text/plain;q=0.1", EXPOSITION_TEXT},
    {"application/openmetrics-text;q=.,text/plain;q=0.1", EXPOSITION_TEXT},
    {"application/openmetrics-text;q=1.2.3,text/plain;q=0.1", EXPOSITION_TEXT},
    {"application/openmetrics-text q=1,text/plain;q=0.1", EXPOSITION_TEXT},
    {"application/;q=1,/,;,=,application/openmetrics-text;q=0.2,text/plain;q=0.1",
     EXPOSITION_OPENMETRICS},
    {",,,application/openmetrics-text;q=0.2,,text/plain;q=0.1,", EXPOSITION_OPENMETRICS},
    {"text/plain;q=0.1,x/y;z=\"never closed, application/openmetrics-text", EXPOSITION_TEXT},
    {"\"application/openmetrics-text\"", EXPOSITION_TEXT},
    {"\xff\xfe\x01,application/openmetrics-text", EXPOSITION_OPENMETRICS},
    {"application/openmetrics-text;q=99999999999999999999999999,text/plain;q=0.9",
     EXPOSITION_OPENMETRICS},
    {"application/openmetrics-text;q=0.00000000000000000001,text/plain;q=0.001", EXPOSITION_TEXT},
};

START_TEST(accept_headers)
{
    ck_assert_msg(exposition_negotiate(accepts[_i].accept) == accepts[_i].format, "Accept: %s",
                  accepts[_i].accept);
}
END_TEST

static const struct {
    const char *accept_encoding;
    bool gzip;
} encodings[] = {
    {NULL, false},
    {"", false},
    {"gzip", true},
    {"gzip, deflate, br, zstd", true},
    {"deflate, br", false},
    {"identity", false},
    {"*", true},
    {"*;q=0", false},
    {"gzip;q=0", false},
    {"gzip;q=0, *", false},
    {"gzip;q=0.001", true},
    {"GZIP", true},
    {"x-gzip", true},
    {"*;q=0, gzip;q=0.5", true},
    {"identity;q=1, gzip;q=bad", false},
    {"gzip/x", false},
    {"gzipped", false},
    {"br;q=1.0, gzip;q=0.8, *;q=0.1", true},
    {",, gzip ,,", true},
};

START_TEST(accept_encodings)
{
    ck_assert_msg(exposition_accepts_gzip(encodings[_i].accept_encoding) == encodings[_i].gzip,
                  "Accept-Encoding: %s", encodings[_i].accept_encoding);
}
END_TEST

/* Bytes that matter to the parser, in any order: an answer comes, whatever they are. */
START_TEST(any_bytes)
{
    static const char alphabet[] = ",;=/\"\\*q01.9 \tatext/plainversion\xff";
    for (int round = 0; round < 20000; round++) {
        char header[64];
        size_t len = testing_random_below(sizeof header);
        for (size_t i = 0; i < len; i++)
            header[i] = alphabet[testing_random_below(sizeof alphabet - 1)];
        header[len] = '\0';
        enum exposition_format format = exposition_negotiate(header);
        /* The alphabet has not the letters of protobuf's name. */
        ck_assert(format == EXPOSITION_TEXT || format == EXPOSITION_OPENMETRICS);
        (void)exposition_accepts_gzip(header);
    }
}
END_TEST

START_TEST(content_types)
{
    ck_assert_str_eq(exposition_content_type(EXPOSITION_TEXT),
                     "text/plain; version=0.0.4; charset=utf-8");
    ck_assert_str_eq(exposition_content_type(EXPOSITION_OPENMETRICS),
                     "application/openmetrics-text; version=1.0.0; charset=utf-8");
    ck_assert_str_eq(exposition_content_type(EXPOSITION_PROTOBUF),
                     "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; "
                     "encoding=delimited");
}
END_TEST

Suite *negotiate_suite(void)
{
    Suite *suite = suite_create("negotiate");
    TCase *tc = tcase_create("accept");
    tcase_add_loop_test(tc, accept_headers, 0, ARRAY_LEN(accepts));
    tcase_add_loop_test(tc, accept_encodings, 0, ARRAY_LEN(encodings));
    tcase_add_test(tc, any_bytes);
    tcase_add_test(tc, content_types);
    suite_add_tcase(suite, tc);
    return suite;
}
