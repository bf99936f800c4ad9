/*
 * What one keep-alive exchange costs weir itself: a client's connection, h1_stream, flow, origin
 * and h1_client, in one thread, with the client and the server played by this program.
 *
 *     tests/bench/flow_bench [exchanges [json]]      (20000; json: with an access log to /dev/null)
 *
 * Prints CPU time per exchange, and instructions in user mode where the kernel lets them be
 * counted. Else, for instructions by function:
 *
 *     valgrind --tool=callgrind --toggle-collect=exchange tests/bench/flow_bench 2000
 *
 * The two ends cost one read and one write each, and are in the numbers.
 */
#include "http/downstream.h"
#include "proxy/accesslog.h"
#include "proxy/flow.h"
#include "proxy/upstream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void exchange(void); /* has a name for callgrind */

static struct loop *loop, *control;
static int listening = -1, server = -1, client = -1;

static const char request[] = "GET /api/4711/things?q=1 HTTP/1.1\r\n"
                              "Host: bench.example.com\r\n"
                              "User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
                              "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n"
                              "Accept-Language: en-US,en;q=0.5\r\n"
                              "Accept-Encoding: gzip, deflate, br\r\n"
                              "Cookie: session=0123456789abcdef0123456789abcdef\r\n\r\n";
static char response[2048];
static size_t response_n;

static void fail(const char *what)
{
        perror(what);
        exit(1);
}

/* ------------------------------------------------------------------ the configuration */

static char text[2048];

static bool read_file(struct source *s, str path, struct arena *a, str *content, str *error)
{
        (void)s, (void)path, (void)error;
        *content = arena_dup(a, str_z(text));
        return true;
}

static struct gen *build(struct house *house)
{
        static struct source source = {.file = read_file};
        struct report rep = {0};
        struct gen *g = gen_build(house, 1, &source, STR("/bench.conf"), STR("/"), &rep);
        str said = buf_pullup(&rep.out, rep.out.n);

        if (g == NULL) {
                fprintf(stderr, "%.*s", STR_ARG(said));
                exit(1);
        }
        buf_clear(&rep.out);
        return g;
}

static void write_conf(uint16_t port, bool log)
{
        snprintf(text, sizeof(text),
                 "access_log %s;\n"
                 "listen 127.0.0.1:1;\n"
                 "upstream api { server 127.0.0.1:%u; }\n"
                 "host bench.example.com {\n"
                 "    route = /healthz { respond 200 ok; }\n"
                 "    route ~ '^/static/.*\\.(css|js)$' { respond 404; }\n"
                 "    route ~ '^/api/(?<id>\\d+)/' { proxy api; }\n"
                 "    route / { respond 404; }\n"
                 "}\n",
                 log ? "/dev/null format=json" : "off", port);
}

/* ------------------------------------------------------------------ the two ends */

static uint16_t listen_here(void)
{
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t n = sizeof(in);

        listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (listening < 0 || bind(listening, (struct sockaddr *)&in, sizeof(in)) != 0 ||
            listen(listening, 8) != 0 || getsockname(listening, (struct sockaddr *)&in, &n) != 0)
                fail("listen");
        return ntohs(in.sin_port);
}

/* Reads until n bytes are there; turns the loop while there are none. */
static void take(int fd, size_t n)
{
        char bytes[4096];

        while (n > 0) {
                ssize_t got = recv(fd, bytes, n < sizeof(bytes) ? n : sizeof(bytes), MSG_DONTWAIT);
                if (got > 0)
                        n -= (size_t)got;
                else if (got < 0 && errno == EAGAIN)
                        loop_turn(loop, false);
                else
                        fail("an end was closed");
        }
}

/* Reads until the last bytes are end; returns how many there were. */
static size_t take_until(int fd, const char *end)
{
        static char bytes[8192];
        size_t have = 0, n = strlen(end);

        while (have < n || memcmp(bytes + have - n, end, n) != 0) {
                ssize_t got = recv(fd, bytes + have, sizeof(bytes) - have, MSG_DONTWAIT);
                if (got > 0)
                        have += (size_t)got;
                else if (got < 0 && errno == EAGAIN)
                        loop_turn(loop, false);
                else
                        fail("an end was closed");
        }
        if (fd == client && memcmp(bytes, "HTTP/1.1 200 ", 13) != 0) {
                fprintf(stderr, "no answer of the server: %.*s\n", (int)have, bytes);
                exit(1);
        }
        return have;
}

static void give(int fd, const char *p, size_t n)
{
        if (send(fd, p, n, MSG_NOSIGNAL) != (ssize_t)n)
                fail("send");
}

static void accept_server(void)
{
        while ((server = accept4(listening, NULL, NULL, SOCK_CLOEXEC)) < 0) {
                if (errno != EAGAIN)
                        fail("accept");
                loop_turn(loop, false);
        }
}

static size_t answer_n; /* as the client gets it: weir adds and drops fields */

__attribute__((noinline)) void exchange(void)
{
        give(client, request, sizeof(request) - 1);
        take_until(server, "\r\n\r\n");
        give(server, response, response_n);
        take(client, answer_n);
}

/* How long the answer is: the first one shows it. */
static void measure_answer(void)
{
        give(client, request, sizeof(request) - 1);
        accept_server();
        take_until(server, "\r\n\r\n");
        give(server, response, response_n);
        answer_n = take_until(client, "!");
}

/* ------------------------------------------------------------------ measuring */

static double cpu_us(void)
{
        struct timespec t;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* Counts this thread's instructions outside the kernel; -1: not allowed here. */
static int count_instructions(void)
{
        struct perf_event_attr a = {.type = PERF_TYPE_HARDWARE,
                                    .size = sizeof(a),
                                    .config = PERF_COUNT_HW_INSTRUCTIONS,
                                    .disabled = 1,
                                    .exclude_kernel = 1,
                                    .exclude_hv = 1};
        return (int)syscall(SYS_perf_event_open, &a, 0, -1, -1, 0);
}

static void run(unsigned n)
{
        int counter = count_instructions();
        uint64_t instructions = 0;
        double t0;

        for (unsigned i = 0; i < n / 10 + 10; i++) /* slabs and free lists fill */
                exchange();
        t0 = cpu_us();
        if (counter >= 0)
                ioctl(counter, PERF_EVENT_IOC_ENABLE, 0);
        for (unsigned i = 0; i < n; i++)
                exchange();
        if (counter >= 0)
                ioctl(counter, PERF_EVENT_IOC_DISABLE, 0);
        printf("%u exchanges, %.2f us of CPU each", n, (cpu_us() - t0) / n);
        if (counter >= 0 && read(counter, &instructions, sizeof(instructions)) > 0)
                printf(", %.0f instructions each", (double)instructions / n);
        printf("\n");
}

int main(int argc, char **argv)
{
        unsigned n = argc > 1 ? (unsigned)atoi(argv[1]) : 20000;
        bool log = argc > 2 && strcmp(argv[2], "json") == 0;
        struct metric_region *region = metric_region_new(2, 256 * KIB);
        struct flow_listener listener;
        struct addr peer;
        int pair[2];

        if (n == 0) {
                fprintf(stderr, "usage: flow_bench [exchanges [json]]\n");
                return 2;
        }
        for (unsigned i = 0; i < 2; i++)
                metric_slot_begin(metric_slot(region, i));
        loop = loop_new(0, metric_slot(region, 0));
        control = loop_new(~0U, metric_slot(region, 1));
        write_conf(listen_here(), log);
        struct house house = {.control = control, .loops = &loop, .n_loops = 1};
        house.upstreams = upstreams_new(control, &loop, 1, inflight_region_new(1), 0);
        struct gen *g = build(&house);
        if (!gen_prepare(g, loop)) {
                fprintf(stderr, "not prepared\n");
                return 1;
        }
        gen_commit(g, loop);
        if (log) {
                accesslog_start();
                accesslog_set_fd(STR("/dev/null"), open("/dev/null", O_WRONLY | O_CLOEXEC));
        }
        snprintf(response, sizeof(response),
                 "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\n"
                 "Content-Type: application/json\r\nETag: \"5f3-1\"\r\nContent-Length: 1024\r\n\r\n"
                 "%*s!",
                 1023, "");
        response_n = strlen(response);
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
                fail("socketpair");
        client = pair[1];
        if (!addr_parse(STR("127.0.0.1:1"), &listener.addr) ||
            !addr_parse(STR("192.0.2.1:4711"), &peer))
                return 1;
        loop_turn(loop, false);
        flow_accept(loop, pair[0], &peer, &listener);
        measure_answer();
        run(n);
        if (log)
                accesslog_stop();
        return 0;
}
