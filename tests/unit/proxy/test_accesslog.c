/* Access logs: exact lines, hostile input, batches, a sink that stalls or is swapped. */
#include "proxy/accesslog.c"

#include "../net/pump.h"
#include "one_request.h"

#include <poll.h>

#define FILE_PATH "/var/log/weir/access.log"

static struct access_log_conf combined = {.path = STR_INIT(FILE_PATH),
                                          .format_name = STR_INIT("combined")};
static struct access_log_conf json = {.path = STR_INIT(FILE_PATH), .format_name = STR_INIT("json")};
static int out[2]; /* what is written to FILE_PATH comes out of out[0] */

static int setup(void **state)
{
        one_setup(state);
        signal(SIGPIPE, SIG_IGN); /* as the daemon does */
        assert_int_equal(pipe(out), 0);
        fcntl(out[0], F_SETFL, O_NONBLOCK);
        accesslog_start();
        accesslog_set_fd(STR(FILE_PATH), out[1]);
        target("/x?q=1");
        one.r.res.status = 200;
        one.r.bytes_out = 12;
        one.r.bytes_in = 3;
        one.t.finished = one.r.started + 1500;
        return 0;
}

static int teardown(void **state)
{
        close(out[0]);
        accesslog_loop_end(one.loop);
        accesslog_stop();
        assert_null(writer.first);
        assert_int_equal(writer.queued, 0);
        return one_teardown(state);
}

/* Reads until n lines are there; the text is good until the next call. */
static char *read_lines(int fd, size_t n)
{
        static char text[256 * KIB];
        size_t len = 0, seen = 0;

        while (seen < n) {
                struct pollfd p = {.fd = fd, .events = POLLIN};
                if (poll(&p, 1, 10000) != 1)
                        fail_msg("%zu lines within 10 s, not %zu", seen, n);
                ssize_t got = read(fd, text + len, sizeof(text) - 1 - len);
                assert_true(got > 0);
                for (ssize_t i = 0; i < got; i++)
                        seen += text[len + (size_t)i] == '\n';
                len += (size_t)got;
        }
        text[len] = '\0';
        return text;
}

static char *logged(const struct access_log_conf *log)
{
        accesslog_write(&one.t, log);
        accesslog_flush(one.loop);
        return read_lines(out[0], 1);
}

/* ------------------------------------------------------------------ lines */

static void combined_line(void **state)
{
        (void)state;
        assert_string_equal(logged(&combined),
                            "192.0.2.1 - - [23/Nov/2026:10:00:00 +0000] \"GET /x?q=1 HTTP/1.1\" "
                            "200 12 \"-\" \"-\"\n");
        req_field("Referer", "https://example.com/a");
        req_field("User-Agent", "curl/8.0 (x)");
        one.loop->wall += SEC;
        one.r.req.version = 10;
        assert_string_equal(logged(&combined),
                            "192.0.2.1 - - [23/Nov/2026:10:00:01 +0000] \"GET /x?q=1 HTTP/1.0\" "
                            "200 12 \"https://example.com/a\" \"curl/8.0 (x)\"\n");
}

static void json_line(void **state)
{
        struct upstream_conf u = {.name = STR("users")};

        (void)state;
        assert_string_equal(logged(&json),
                            "{\"time\":\"2026-11-23T10:00:00.123Z\",\"request_id\":\"id-1\","
                            "\"client_ip\":\"192.0.2.1\",\"method\":\"GET\",\"scheme\":\"http\","
                            "\"host\":\"example.com\",\"uri\":\"/x?q=1\",\"status\":200,"
                            "\"bytes_received\":3,\"bytes_sent\":12,\"duration_ms\":1.5}\n");
        req_field("Referer", "r");
        req_field("User-Agent", "ua");
        one.route.label = STR("~ ^/x");
        one.t.match.route = &one.route;
        one.t.upstream = &u;
        one.t.server = STR("10.0.0.1:80");
        one.t.attempts = 2;
        one.t.upstream_us = 250;
        one.tls = (struct tls_facts){.version = STR("TLSv1.3"), .sni = STR("example.com")};
        one.t.tls = &one.tls;
        one.t.reason = REASON_RESPONSE_IDLE;
        assert_string_equal(
                logged(&json),
                "{\"time\":\"2026-11-23T10:00:00.123Z\",\"request_id\":\"id-1\","
                "\"client_ip\":\"192.0.2.1\",\"method\":\"GET\",\"scheme\":\"http\","
                "\"host\":\"example.com\",\"uri\":\"/x?q=1\",\"status\":200,"
                "\"bytes_received\":3,\"bytes_sent\":12,\"duration_ms\":1.5,"
                "\"route\":\"~ ^/x\",\"upstream\":\"users\",\"server\":\"10.0.0.1:80\","
                "\"attempts\":2,\"upstream_duration_ms\":0.25,\"referer\":\"r\","
                "\"user_agent\":\"ua\",\"tls_version\":\"TLSv1.3\",\"tls_sni\":\"example.com\","
                "\"reason\":\"response_idle\"}\n");
}

/* A request that could not be read still has its line. */
static void nothing_is_known(void **state)
{
        (void)state;
        one.r.req = (struct msg){0};
        one.t.host = STR_NONE;
        one.r.res.status = 400;
        one.t.reason = REASON_BAD_REQUEST_LINE;
        one.t.finished = one.r.started - 1;
        assert_string_equal(logged(&combined),
                            "192.0.2.1 - - [23/Nov/2026:10:00:00 +0000] \"- - HTTP/0.0\" 400 12 "
                            "\"-\" \"-\"\n");
        assert_string_equal(logged(&json),
                            "{\"time\":\"2026-11-23T10:00:00.123Z\",\"request_id\":\"id-1\","
                            "\"client_ip\":\"192.0.2.1\",\"scheme\":\"http\",\"status\":400,"
                            "\"bytes_received\":3,\"bytes_sent\":12,\"duration_ms\":0,"
                            "\"reason\":\"bad_request_line\"}\n");
}

#define HOSTILE "a\"b\\c\n127.0.0.1 - - \r\x1b[2J\x7f\xc3\xa4\xff\t|"
#define ESCAPED "a\\x22b\\x5cc\\x0a127.0.0.1 - - \\x0d\\x1b[2J\\x7f\\xc3\\xa4\\xff\\x09|"

static void hostile_input(void **state)
{
        struct access_log_conf custom = {.path = STR(FILE_PATH),
                                         .format_name = STR("mine"),
                                         .format = template_of("<$header_user_agent>")};

        (void)state;
        req_field("User-Agent", HOSTILE);
        req_field("Referer", "\"");
        one.r.req.target = STR("/\" 200 1 \"");
        one.r.req.method_text = STR("G\nT");
        assert_string_equal(logged(&combined),
                            "192.0.2.1 - - [23/Nov/2026:10:00:00 +0000] \"G\\x0aT "
                            "/\\x22 200 1 \\x22 HTTP/1.1\" 200 12 \"\\x22\" \"" ESCAPED "\"\n");
        assert_string_equal(logged(&custom), "<" ESCAPED ">\n");
        char *line = logged(&json);
        assert_non_null(strstr(line, "\"method\":\"G\\nT\""));
        assert_non_null(strstr(line, "\"uri\":\"/\\\" 200 1 \\\"\""));
        assert_non_null(strstr(line, "\"user_agent\":\"a\\\"b\\\\c\\n127.0.0.1 - - \\r\\u001b[2J"));
        for (char *p = line; p[1] != '\0'; p++)
                assert_true((unsigned char)*p >= 0x20);
}

static void every_byte(void **state)
{
        (void)state;
        for (int c = 1; c < 256; c++) {
                char text[2] = {(char)c, '\0'}, want[8];
                one.r.req.fields.n = 0;
                req_field("User-Agent", text);
                bool safe = c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
                snprintf(want, sizeof(want), safe ? "%c" : "\\x%02x", c);
                char *line = logged(&combined);
                assert_memory_equal(strrchr(line, '"') - strlen(want), want, strlen(want));
        }
}

static void log_formats(void **state)
{
        struct access_log_conf custom = {
                .path = STR(FILE_PATH),
                .format_name = STR("mine"),
                .format = template_of(
                        "$client_ip \"$header_x\" [$status] $$ ${duration_ms}ms $reason")};
        struct access_log_conf constant = {
                .path = STR(FILE_PATH), .format_name = STR("c"), .format = template_of("ping")};

        (void)state;
        assert_string_equal(logged(&custom), "192.0.2.1 \"-\" [200] $ 1ms -\n");
        req_field("X", "y");
        one.t.reason = REASON_NO_ROUTE;
        assert_string_equal(logged(&custom), "192.0.2.1 \"y\" [200] $ 1ms no_route\n");
        assert_string_equal(logged(&constant), "ping\n");
}

static void logs_do_not_mix(void **state)
{
        struct access_log_conf other = {.path = STR("/other"), .format_name = STR("combined")};
        struct access_log_conf nowhere = {.path = STR("/nowhere"), .format_name = STR("json")};
        int second[2];

        (void)state;
        assert_int_equal(pipe(second), 0);
        accesslog_set_fd(STR("/other"), second[1]);
        accesslog_write(&one.t, &combined);
        accesslog_write(&one.t, &nowhere);
        one.r.req.target = STR("/second");
        accesslog_write(&one.t, &other);
        one.r.req.target = STR("/third");
        accesslog_write(&one.t, &json); /* the same file as the first */
        accesslog_flush(one.loop);
        char *text = read_lines(out[0], 2);
        assert_non_null(strstr(text, "GET /x?q=1"));
        assert_non_null(strstr(text, "\"uri\":\"/third\""));
        assert_null(strstr(text, "/second"));
        assert_non_null(strstr(read_lines(second[0], 1), "GET /second"));
        close(second[0]);
}

/* ------------------------------------------------------------------ batches */

/* A template whose lines are numbered. */
static uint64_t numbered(struct access_log_conf *log, uint64_t from, uint64_t n)
{
        for (uint64_t i = from; i < from + n; i++) {
                one.r.bytes_out = 1000000000 + i;
                accesslog_write(&one.t, log);
        }
        return from + n;
}

static struct access_log_conf numbers(void)
{
        return (struct access_log_conf){.path = STR(FILE_PATH),
                                        .format_name = STR("numbers"),
                                        .format = template_of("$bytes_sent")};
}
#define LINE 11 /* ten digits and a newline */

/* Reads all there is until the other side is closed, checking that numbers ascend and no line is
 * torn; says how many lines there were. */
struct drain {
        pthread_t thread;
        int fd;
        uint64_t lines, last;
        bool torn;
};

static void *drain_main(void *arg)
{
        struct drain *d = arg;
        char line[LINE];
        size_t have = 0;
        struct pollfd p = {.fd = d->fd, .events = POLLIN};

        while (poll(&p, 1, 20000) == 1) {
                ssize_t got = read(d->fd, line + have, LINE - have);
                if (got <= 0)
                        break;
                if ((have += (size_t)got) < LINE)
                        continue;
                uint64_t v = 0;
                d->torn |= !str_u64(str_of(line, LINE - 1), UINT64_MAX, &v) ||
                           line[LINE - 1] != '\n' || v <= d->last;
                d->last = v;
                d->lines++;
                have = 0;
        }
        d->torn |= have != 0;
        return NULL;
}

static void drain_start(struct drain *d)
{
        assert_int_equal(pthread_create(&d->thread, NULL, drain_main, d), 0);
}

/* Ends the log and waits until all of it has been read. */
static uint64_t drain_end(struct drain *d)
{
        accesslog_loop_end(one.loop);
        accesslog_stop(); /* closes the writing end */
        pthread_join(d->thread, NULL);
        assert_false(d->torn);
        accesslog_start();
        return d->lines;
}

static uint64_t dropped(void)
{
        return metric_sum(one.region, METRIC_LOG_DROPPED, STR(""));
}

/* Waits until the writer has taken all that was handed over. */
static void queue_empty(void)
{
        for (bool empty = false; !empty; sched_yield()) {
                pthread_mutex_lock(&writer.lock);
                empty = writer.first == NULL;
                pthread_mutex_unlock(&writer.lock);
        }
}

static void more_than_a_batch(void **state)
{
        struct access_log_conf log = numbers();
        struct drain d = {.fd = out[0]};
        uint64_t before = dropped();

        (void)state;
        drain_start(&d);
        numbered(&log, 0, 5 * BATCH / LINE + 7);
        assert_int_equal(drain_end(&d), 5 * BATCH / LINE + 7);
        assert_int_equal(dropped(), before);
}

static void full_to_the_byte(void **state)
{
        struct loop_log *ll;
        char text[BATCH];

        (void)state;
        memset(text, 'x', sizeof(text));
        text[sizeof(text) - 1] = '\n';
        accesslog_write(&one.t, &combined);
        ll = loop_log(one.loop, STR(FILE_PATH));
        hand_over(ll);
        append(ll, str_of(text, BATCH - 2)); /* together exactly one batch */
        append(ll, str_of(text + BATCH - 2, 2));
        assert_int_equal(ll->batch->n, BATCH);
        append(ll, STR("y\n"));
        assert_int_equal(ll->batch->n, 2);
        accesslog_flush(one.loop);
        char *all = read_lines(out[0], 3);
        assert_string_equal(strchr(all, '\n') + 1 + BATCH, "y\n");
}

/* A line that no batch can hold is cut, and stays one line. */
static void a_line_longer_than_a_batch(void **state)
{
        char *text = malloc(BATCH);

        (void)state;
        memset(text, '\x01', BATCH - 1);
        text[BATCH - 1] = '\0';
        req_field("User-Agent", text); /* each byte becomes four */
        accesslog_write(&one.t, &combined);
        one.r.req.fields.n = 0;
        accesslog_write(&one.t, &combined);
        accesslog_flush(one.loop);
        char *all = read_lines(out[0], 2), *end = strchr(all, '\n');
        assert_int_equal(end + 1 - all, BATCH);
        assert_int_equal(strspn(end - 5, "\\x01"), 5);
        assert_string_equal(end + 1,
                            "192.0.2.1 - - [23/Nov/2026:10:00:00 +0000] \"GET /x?q=1 HTTP/1.1\" "
                            "200 12 \"-\" \"-\"\n");
        free(text);
}

static void old_lines_are_handed_over(void **state)
{
        char byte;

        (void)state;
        loop_turn(one.loop, false);
        accesslog_write(&one.t, &combined);
        assert_int_equal(read(out[0], &byte, 1), -1); /* it waits for company */
        int64_t began = one.loop->now;
        PUMP_UNTIL(one.loop, loop_log(one.loop, STR(FILE_PATH))->batch == NULL);
        assert_true(one.loop->now - began >= HAND_OVER);
        read_lines(out[0], 1);
}

/* ------------------------------------------------------------------ sinks */

static void stalled_sink_drops(void **state)
{
        struct access_log_conf log = numbers();
        struct drain d = {.fd = out[0]};
        uint64_t n = 0, before = dropped();
        size_t most = 0;

        (void)state;
        /* Nobody reads: the writer is stuck in a write after 64 KiB.  Were the loop to wait for it,
         * this would never end. */
        while (dropped() == before) {
                n = numbered(&log, n, 5000);
                pthread_mutex_lock(&writer.lock);
                most = MAX(most, writer.queued);
                pthread_mutex_unlock(&writer.lock);
                assert_true(n < 10 * QUEUE_MAX / LINE);
        }
        n = numbered(&log, n, 100000);
        assert_in_range(most, QUEUE_MAX / 2, QUEUE_MAX);
        drain_start(&d);
        uint64_t read_ = drain_end(&d);
        assert_int_equal(read_ + dropped() - before, n); /* each is either written or counted */
        assert_true(dropped() - before >= 50000);
}

/* Small batches cost as much memory as full ones, and are bounded like them. */
static void stalled_sink_with_few_lines(void **state)
{
        struct access_log_conf log = numbers();
        struct drain d = {.fd = out[0]};
        uint64_t before = dropped(), n = numbered(&log, 0, 2 * BATCH / LINE), held = n;

        (void)state;
        accesslog_flush(one.loop); /* the pipe is full now */
        for (int i = 0; i < 1000; i++) {
                n = numbered(&log, n, 1);
                accesslog_flush(one.loop);
        }
        assert_true(n - held - (dropped() - before) <= QUEUE_MAX / sizeof(struct batch) + 1);
        drain_start(&d);
        assert_int_equal(drain_end(&d) + dropped() - before, n);
}

static void reopened_while_stalled(void **state)
{
        struct access_log_conf log = numbers();
        struct drain d = {.fd = out[0]};
        int second[2];
        uint64_t n = numbered(&log, 0, 3 * BATCH / LINE);

        (void)state;
        accesslog_flush(one.loop);
        assert_int_equal(poll(&(struct pollfd){.fd = out[0], .events = POLLIN}, 1, 10000), 1);
        assert_int_equal(pipe(second), 0);
        accesslog_set_fd(STR(FILE_PATH), second[1]); /* does not wait for the write */
        drain_start(&d);
        pthread_join(d.thread, NULL); /* the old end is closed when what was begun is written */
        assert_false(d.torn);
        assert_in_range(d.lines, 1, n);
        struct drain rest = {.fd = second[0]};
        drain_start(&rest);
        assert_int_equal(drain_end(&rest) + d.lines, n);
        close(second[0]);
}

#define FILES 40

static void *swap_main(void *arg)
{
        int *fds = arg;

        for (int i = 0; i < FILES; i++) {
                accesslog_set_fd(STR(FILE_PATH), dup(fds[i]));
                sched_yield();
        }
        return NULL;
}

/* Every line is in one of the files, whole. */
static void reopened_while_writing(void **state)
{
        struct access_log_conf log = numbers();
        FILE *files[FILES];
        int fds[FILES];
        pthread_t swapper;
        uint64_t n = 0, found = 0;
        char line[LINE + 1];

        (void)state;
        for (int i = 0; i < FILES; i++) {
                assert_non_null(files[i] = tmpfile());
                fds[i] = fileno(files[i]);
                fcntl(fds[i], F_SETFL, O_APPEND);
        }
        accesslog_set_fd(STR(FILE_PATH), dup(fds[0]));
        assert_int_equal(pthread_create(&swapper, NULL, swap_main, fds), 0);
        for (int i = 0; i < 400; i++) {
                n = numbered(&log, n, 100);
                accesslog_flush(one.loop);
                if (i % 64 == 0)
                        queue_empty(); /* so that none is dropped */
        }
        pthread_join(swapper, NULL);
        accesslog_loop_end(one.loop);
        accesslog_stop();
        for (int i = 0; i < FILES; i++) {
                rewind(files[i]);
                for (; fread(line, 1, LINE, files[i]) == LINE; found++) {
                        uint64_t v;
                        assert_true(str_u64(str_of(line, LINE - 1), UINT64_MAX, &v));
                        assert_int_equal(line[LINE - 1], '\n');
                }
                fclose(files[i]);
        }
        assert_int_equal(found, n);
        accesslog_start();
}

static void a_reader_that_has_gone(void **state)
{
        int again[2];

        (void)state;
        close(out[0]);
        accesslog_write(&one.t, &combined); /* EPIPE: said in the error log */
        accesslog_flush(one.loop);
        assert_int_equal(pipe(again), 0);
        queue_empty();
        accesslog_set_fd(STR(FILE_PATH), again[1]);
        accesslog_write(&one.t, &combined);
        accesslog_flush(one.loop);
        read_lines(again[0], 1);
        out[0] = again[0];
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(combined_line),
                TEST(json_line),
                TEST(nothing_is_known),
                TEST(hostile_input),
                TEST(every_byte),
                TEST(log_formats),
                TEST(logs_do_not_mix),
                TEST(more_than_a_batch),
                TEST(full_to_the_byte),
                TEST(a_line_longer_than_a_batch),
                TEST(old_lines_are_handed_over),
                TEST(stalled_sink_drops),
                TEST(stalled_sink_with_few_lines),
                TEST(reopened_while_stalled),
                TEST(reopened_while_writing),
                TEST(a_reader_that_has_gone),
        };

        return cmocka_run_group_tests(tests, one_begin, one_end);
}
