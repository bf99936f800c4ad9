/* Metrics: the text, sums over slots, what survives a writer, and a slot that is full. */
#include "base/metric.c"

#include "unit.h"

static str export_text(struct metric_region *r, struct buf *out)
{
        buf_clear(out);
        metric_export(r, out);
        return buf_pullup(out, SIZE_MAX);
}

static void assert_has(str text, const char *line)
{
        if (str_find(text, str_z(line)) < 0)
                fail_msg("no \"%s\" in:\n%.*s", line, STR_ARG(text));
}

static void assert_has_not(str text, const char *line)
{
        assert_int_equal(str_find(text, str_z(line)), -1);
}

static void what_is_retired_is_not_shown(void **state)
{
        struct metric_region *r = metric_region_new(1, 16 * KIB);
        struct metric_slot *s = metric_slot(r, 0);
        struct buf out = BUF_INIT;

        (void)state;
        metric_set(metric_series(s, METRIC_SERVER_UP, STR("server=\"a\"")), 1);
        metric_retire(s, METRIC_SERVER_UP, STR("server=\"a\""));
        metric_retire(s, METRIC_SERVER_UP, STR("server=\"never\""));
        assert_has_not(export_text(r, &out), "server=\"a\"");
        metric_set(metric_series(s, METRIC_SERVER_UP, STR("server=\"a\"")), 0);
        assert_has(export_text(r, &out), "weir_server_up{server=\"a\"} 0\n");
        buf_clear(&out);
        metric_region_free(r);
}

static void sums_slots(void **state)
{
        struct metric_region *r = metric_region_new(3, 16 * KIB);
        struct buf out = BUF_INIT;
        str text;

        (void)state;
        for (unsigned i = 0; i < 3; i++) {
                struct metric_slot *s = metric_slot(r, i);
                metric_cell *c = metric_series(s, METRIC_REQUESTS, STR("route=\"/\",code=\"2xx\""));
                metric_add(c, i + 1);
                assert_ptr_equal(metric_series(s, METRIC_REQUESTS, STR("route=\"/\",code=\"2xx\"")),
                                 c);
                assert_ptr_not_equal(metric_series(s, METRIC_REQUESTS, STR("")), c);
                assert_ptr_not_equal(
                        metric_series(s, METRIC_RETRIES, STR("route=\"/\",code=\"2xx\"")), c);
                metric_set(metric_series(s, METRIC_REQUESTS_OPEN, STR("")), 5 - 4 * (int)i);
                metric_set(metric_series(s, METRIC_SERVER_UP, STR("server=\"a\"")), i == 1);
        }
        assert_int_equal(metric_sum(r, METRIC_REQUESTS, STR("route=\"/\",code=\"2xx\"")), 6);
        assert_int_equal(metric_sum(r, METRIC_REQUESTS_OPEN, STR("")), 3);
        assert_int_equal(metric_sum(r, METRIC_SERVER_UP, STR("server=\"a\"")), 1);
        text = export_text(r, &out);
        assert_has(text,
                   "# HELP weir_requests_total Requests finished, by route and status class.\n"
                   "# TYPE weir_requests_total counter\n"
                   "weir_requests_total{route=\"/\",code=\"2xx\"} 6\n"
                   "weir_requests_total 0\n");
        assert_has(text, "# TYPE weir_requests gauge\nweir_requests 3\n");
        assert_has(text, "# TYPE weir_server_up gauge\nweir_server_up{server=\"a\"} 1\n");
        assert_has(text, "weir_metrics_dropped_total 0\n");
        assert_has_not(text, "weir_redis"); /* no series, no family */
        metric_set(metric_series(metric_slot(r, 0), METRIC_REQUESTS_OPEN, STR("")), -10);
        assert_has(export_text(r, &out), "weir_requests -12\n");
        /* while a change of shape is under way the slots differ: the first one's counts */
        metric_add(metric_series_custom(metric_slot(r, 0), STR("weir_m"), METRIC_COUNTER, STR("h"),
                                        STR(""), NULL, 0),
                   4);
        metric_set(metric_series_custom(metric_slot(r, 1), STR("weir_m"), METRIC_GAUGE, STR("h"),
                                        STR(""), NULL, 0),
                   9);
        assert_has(export_text(r, &out), "# TYPE weir_m counter\nweir_m 4\n");
        buf_clear(&out);
        metric_region_free(r);
        metric_region_free(NULL);
}

static void histograms(void **state)
{
        struct metric_region *r = metric_region_new(2, 16 * KIB);
        static const uint64_t values[] = {0, 1000, 1001, 2500, 59999999, 60000000, 60000001};
        struct buf out = BUF_INIT;
        metric_cell *h = metric_series(metric_slot(r, 0), METRIC_DURATION, STR("route=\"/\""));
        str text;

        (void)state;
        for (size_t i = 0; i < COUNT(values); i++)
                metric_observe(h, values[i]);
        metric_observe(metric_series(metric_slot(r, 1), METRIC_DURATION, STR("route=\"/\"")), 5);
        assert_int_equal(metric_sum(r, METRIC_DURATION, STR("route=\"/\"")), 8);
        text = export_text(r, &out);
        assert_has(text, "# TYPE weir_request_duration_seconds histogram\n"
                         "weir_request_duration_seconds_bucket{route=\"/\",le=\"0.001\"} 3\n"
                         "weir_request_duration_seconds_bucket{route=\"/\",le=\"0.0025\"} 5\n"
                         "weir_request_duration_seconds_bucket{route=\"/\",le=\"0.005\"} 5\n");
        assert_has(text, "weir_request_duration_seconds_bucket{route=\"/\",le=\"30\"} 5\n"
                         "weir_request_duration_seconds_bucket{route=\"/\",le=\"60\"} 7\n"
                         "weir_request_duration_seconds_bucket{route=\"/\",le=\"+Inf\"} 8\n"
                         "weir_request_duration_seconds_sum{route=\"/\"} 180.004506\n"
                         "weir_request_duration_seconds_count{route=\"/\"} 8\n");
        metric_observe(metric_series(metric_slot(r, 1), METRIC_DURATION, STR("")), 2000000);
        text = export_text(r, &out);
        assert_has(text, "weir_request_duration_seconds_bucket{le=\"2.5\"} 1\n");
        assert_has(text, "weir_request_duration_seconds_sum 2\n");
        buf_clear(&out);
        metric_region_free(r);
}

static void custom_families(void **state)
{
        static const double bounds[] = {0.5, 10}, other[] = {0.5, 11};
        struct metric_region *r = metric_region_new(2, 16 * KIB);
        struct metric_slot *s = metric_slot(r, 0), *t = metric_slot(r, 1);
        struct buf out = BUF_INIT;
        metric_cell *h, *old;
        str text, name = STR("weir_m_size"), help = STR("a\\b\nc");

        (void)state;
        for (int i = 0; i < 2; i++) {
                h = metric_series_custom(i ? t : s, name, METRIC_HISTOGRAM, help, STR(""), bounds,
                                         2);
                metric_custom_observe(h, bounds, 2, 0.5);
                metric_custom_observe(h, bounds, 2, 0.75);
                metric_custom_observe(h, bounds, 2, 100);
                metric_real_add(metric_series_custom(i ? t : s, STR("weir_m_t"),
                                                     METRIC_COUNTER_REAL, help, STR("a=\"b\""),
                                                     NULL, 0),
                                0.25);
        }
        metric_add(metric_series_custom(s, STR("weir_m_n"), METRIC_COUNTER, help, STR(""), NULL, 0),
                   7);
        metric_real_set(
                metric_series_custom(s, STR("weir_m_g"), METRIC_GAUGE_REAL, help, STR(""), NULL, 0),
                -1.5);
        text = export_text(r, &out);
        assert_has(text, "# HELP weir_m_size a\\\\b\\nc\n# TYPE weir_m_size histogram\n"
                         "weir_m_size_bucket{le=\"0.5\"} 2\nweir_m_size_bucket{le=\"10\"} 4\n"
                         "weir_m_size_bucket{le=\"+Inf\"} 6\nweir_m_size_sum 202.5\n"
                         "weir_m_size_count 6\n");
        assert_has(text, "# TYPE weir_m_t counter\nweir_m_t{a=\"b\"} 0.5\n");
        assert_has(text, "weir_m_n 7\n");
        assert_has(text, "# TYPE weir_m_g gauge\nweir_m_g -1.5\n");
        /* other bounds: it begins anew, and the old cells can still be written */
        old = metric_series_custom(s, name, METRIC_HISTOGRAM, help, STR(""), bounds, 2);
        h = metric_series_custom(s, name, METRIC_HISTOGRAM, help, STR(""), other, 2);
        assert_ptr_not_equal(h, old);
        metric_custom_observe(old, bounds, 2, 1);
        metric_series_custom(t, name, METRIC_HISTOGRAM, help, STR(""), other, 2);
        metric_custom_observe(h, other, 2, 11);
        text = export_text(r, &out);
        assert_has(text, "weir_m_size_bucket{le=\"11\"} 1\n");
        assert_has(text, "weir_m_size_count 1\n");
        assert_has_not(text, "le=\"10\"");
        metric_slot_begin(s);
        assert_ptr_equal(metric_series_custom(s, name, METRIC_HISTOGRAM, help, STR(""), other, 2),
                         h);
        buf_clear(&out);
        metric_region_free(r);
}

struct found {
        unsigned parts, custom;
        uint64_t calls;
        double sum;
};

static void find(void *ctx, const struct metric_part *p)
{
        struct found *f = ctx;

        f->parts += p->family != METRIC_METRICS_DROPPED; /* which each slot has */
        if (p->family == METRIC_FUNCTION_CALLS && str_eq(p->labels, STR("function=\"f\"")))
                f->calls += get(p->cells);
        if (p->family != METRIC_FAMILIES)
                return;
        f->custom++;
        assert_true(str_eq(p->name, STR("weir_x_seconds")));
        assert_int_equal(p->n_cells, 4); /* two bounds, +Inf, the sum */
        assert_true(p->bounds[1] > 1.9 && p->bounds[1] < 2.1);
        f->sum += metric_real(p->cells + 3);
}

static void each_part_is_seen(void **state)
{
        static const double bounds[] = {1, 2};
        struct metric_region *r = metric_region_new(2, 16 * KIB);
        struct found f = {0};

        (void)state;
        for (unsigned i = 0; i < 2; i++) {
                struct metric_slot *s = metric_slot(r, i);
                metric_cell *h = metric_series_custom(s, STR("weir_x_seconds"), METRIC_HISTOGRAM,
                                                      STR("x"), STR(""), bounds, COUNT(bounds));
                metric_custom_observe(h, bounds, COUNT(bounds), 1.5);
                metric_add(metric_series(s, METRIC_FUNCTION_CALLS, STR("function=\"f\"")), i + 1);
                metric_set(metric_series(s, METRIC_SERVER_UP, STR("server=\"a\"")), 1);
                metric_retire(s, METRIC_SERVER_UP, STR("server=\"a\""));
        }
        metric_each(r, find, &f);
        assert_int_equal(f.parts, 4);
        assert_int_equal(f.custom, 2);
        assert_int_equal(f.calls, 3);
        assert_true(f.sum > 2.9 && f.sum < 3.1);
        metric_region_free(r);
}

static void replacement_inherits(void **state)
{
        struct metric_region *r = metric_region_new(1, 16 * KIB);
        struct metric_slot *s = metric_slot(r, 0);
        metric_cell *c;
        int status;
        pid_t pid = fork();

        (void)state;
        assert_true(pid >= 0);
        if (pid == 0) {
                metric_add(metric_series(s, METRIC_REQUESTS, STR("a=\"1\"")), 41);
                metric_set(metric_series(s, METRIC_REQUESTS_OPEN, STR("")), 9);
                /* died in the middle of a record */
                memset(record_at(s, s->used), 0xff, 100);
                raise(SIGKILL);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(metric_sum(r, METRIC_REQUESTS_OPEN, STR("")), 9);
        metric_slot_begin(s);
        assert_int_equal(metric_sum(r, METRIC_REQUESTS_OPEN, STR("")), 0);
        c = metric_series(s, METRIC_REQUESTS, STR("a=\"1\""));
        metric_add(c, 1);
        metric_add(metric_series(s, METRIC_REQUESTS, STR("a=\"2\"")), 3);
        assert_int_equal(metric_sum(r, METRIC_REQUESTS, STR("a=\"1\"")), 42);
        assert_int_equal(metric_sum(r, METRIC_REQUESTS, STR("a=\"2\"")), 3);
        metric_region_free(r);
}

static unsigned warnings;

static void count_warnings(enum log_level level, str line)
{
        (void)line;
        warnings += level == LOG_WARN;
}

static void full_slot_drops(void **state)
{
        struct metric_region *r = metric_region_new(1, 4 * KIB);
        struct metric_slot *s = metric_slot(r, 0);
        metric_cell *first = metric_series(s, METRIC_REQUESTS, STR("n=\"0\"")), *c;
        struct buf out = BUF_INIT;
        uint64_t dropped = 0;

        (void)state;
        log_to_fd(open("/dev/null", O_WRONLY), LOG_WARN);
        log_tap = count_warnings;
        for (int i = 0; i < 500; i++) {
                char label[16];
                int n = snprintf(label, sizeof(label), "n=\"%d\"", i);
                c = metric_series(s, METRIC_DURATION, str_of(label, (size_t)n));
                metric_observe(c, UINT64_C(1) << i % 30); /* also into the dummy, harmlessly */
                dropped += c == s->dummy;
        }
        assert_in_range(dropped, 470, 499);
        assert_int_equal(metric_sum(r, METRIC_METRICS_DROPPED, STR("")), dropped);
        assert_int_equal(warnings, 1);
        assert_ptr_equal(metric_series(s, METRIC_REQUESTS, STR("n=\"0\"")), first);
        assert_has(export_text(r, &out), "weir_metrics_dropped_total 4");
        log_tap = NULL;
        buf_clear(&out);
        metric_region_free(r);
}

static void many_series(void **state)
{
        struct metric_region *r = metric_region_new(1, 1 * MIB);
        struct metric_slot *s = metric_slot(r, 0);
        char label[32];

        (void)state;
        for (int round = 0; round < 2; round++)
                for (int i = 0; i < 8000; i++) {
                        int n = snprintf(label, sizeof(label), "route=\"%d\"", i);
                        metric_add(metric_series(s, METRIC_REQUESTS, str_of(label, (size_t)n)), 1);
                }
        assert_int_equal(metric_sum(r, METRIC_METRICS_DROPPED, STR("")), 0);
        for (int i = 0; i < 8000; i += 777) {
                int n = snprintf(label, sizeof(label), "route=\"%d\"", i);
                assert_int_equal(metric_sum(r, METRIC_REQUESTS, str_of(label, (size_t)n)), 2);
        }
        metric_region_free(r);
}

static void labels_are_escaped(void **state)
{
        struct buf b = BUF_INIT;

        (void)state;
        metric_label(&b, "a", STR("x\"y\\z\n\xff\xc3\xa4"));
        metric_label(&b, "b", STR_NONE);
        ASSERT_STR(buf_front(&b), "a=\"x\\\"y\\\\z\\n\xef\xbf\xbd\xc3\xa4\",b=\"\"");
        buf_clear(&b);
}

static void rows_are_sound(void **state)
{
        (void)state;
        for (int i = 0; i < METRIC_FAMILIES; i++) {
                const struct metric_family *f = &metric_families[i];
                bool total = str_ends(str_z(f->name), STR("_total"));
                assert_true(str_starts(str_z(f->name), STR("weir_")));
                assert_int_equal(total, f->kind == METRIC_COUNTER);
                assert_true(f->kind != METRIC_HISTOGRAM || strcmp(f->unit, "seconds") == 0);
                assert_true(strlen(f->help) > 0);
                for (int k = 0; k < i; k++)
                        assert_string_not_equal(f->name, metric_families[k].name);
        }
        for (int i = 1; i < METRIC_BUCKETS; i++)
                assert_true(metric_bounds[i] > metric_bounds[i - 1]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(sums_slots),
                cmocka_unit_test(what_is_retired_is_not_shown),
                cmocka_unit_test(histograms),
                cmocka_unit_test(custom_families),
                cmocka_unit_test(each_part_is_seen),
                cmocka_unit_test(replacement_inherits),
                cmocka_unit_test(full_slot_drops),
                cmocka_unit_test(many_series),
                cmocka_unit_test(labels_are_escaped),
                cmocka_unit_test(rows_are_sound),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
