/*
 * The two ends of the control socket's protocol that need no master: understanding a line, and
 * asking.
 */
#include "daemon/ask.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

const str ask_outcomes[ASK_OUTCOMES] = {STR_INIT("ok"), STR_INIT("failed"),
                                        STR_INIT("rolled back")};

#define CANARY STR("reload canary ")

str ask_canary_line(const struct canary_terms *t, struct arena *a)
{
        return arena_printf(a, "reload canary %u %lld %u", t->share, (long long)t->period,
                            t->tolerance);
}

static bool parse_canary(str text, struct canary_terms *out)
{
        str share, period, tolerance;
        uint64_t s, p, t;

        if (!str_cut(text, ' ', &share, &text) || !str_cut(text, ' ', &period, &tolerance) ||
            !str_u64(share, TRIAL_PARTS - 1, &s) || s == 0 ||
            !str_u64(period, CANARY_PERIOD_MAX, &p) || p < CANARY_PERIOD_MIN ||
            !str_u64(tolerance, TRIAL_PARTS, &t))
                return false;
        *out = (struct canary_terms){
                .share = (uint32_t)s, .period = (int64_t)p, .tolerance = (uint32_t)t};
        return true;
}

bool ask_parse(str line, struct ask_words *out)
{
        static const struct {
                str word;
                enum ask_verb verb;
        } verbs[] = {{STR_INIT("reload"), ASK_RELOAD},
                     {STR_INIT("reopen"), ASK_REOPEN},
                     {STR_INIT("drain"), ASK_DRAIN},
                     {STR_INIT("quit"), ASK_QUIT},
                     {STR_INIT("stop"), ASK_STOP},
                     {STR_INIT("status"), ASK_STATUS},
                     {STR_INIT("functions"), ASK_FUNCTIONS},
                     {STR_INIT("functions json"), ASK_FUNCTIONS_JSON}};
        struct ask_words w = {.verb = ASK_SERVER};
        str rest;

        for (size_t i = 0; i < COUNT(verbs); i++) {
                if (str_eq(line, verbs[i].word)) {
                        *out = (struct ask_words){.verb = verbs[i].verb};
                        return true;
                }
        }
        if (str_starts(line, CANARY)) {
                w.verb = ASK_RELOAD;
                if (!parse_canary(str_from(line, CANARY.n), &w.terms))
                        return false;
                *out = w;
                return true;
        }
        if (str_has_ctl(line))
                return false;
        if (str_starts(line, STR("functions clear "))) {
                w.verb = ASK_CLEAR;
                w.name = str_from(line, 16);
                if (w.name.n == 0 || str_chr(w.name, ' ') >= 0)
                        return false;
                *out = w;
                return true;
        }
        if (!str_starts(line, STR("server ")))
                return false;
        if (!str_cut(str_from(line, 7), ' ', &w.upstream, &rest) ||
            !str_cut(rest, ' ', &w.server, &w.state))
                return false;
        if (w.upstream.n == 0 || w.server.n == 0 ||
            (!str_eq(w.state, STR("drain")) && !str_eq(w.state, STR("down")) &&
             !str_eq(w.state, STR("up"))))
                return false;
        *out = w;
        return true;
}

static int ask_failed(const char *path)
{
        fprintf(stderr, "weir: %s: %s\n", path, strerror(errno));
        return 1;
}

static enum ask_outcome outcome_of(str word)
{
        for (size_t i = 0; i < ASK_OUTCOMES; i++) {
                if (str_eq(word, ask_outcomes[i]))
                        return (enum ask_outcome)i;
        }
        return ASK_FAILED;
}

/* Prints what follows the first line; that line's word is the outcome. */
static int read_answer(int fd)
{
        char buf[4096];
        size_t n = 0;
        bool head = true;
        enum ask_outcome how = ASK_FAILED;

        for (;;) {
                ssize_t r = read(fd, buf + n, sizeof(buf) - n);
                char *end;
                if (r < 0 && errno == EINTR)
                        continue;
                if (r <= 0)
                        break;
                n += (size_t)r;
                end = head ? memchr(buf, '\n', n) : NULL;
                if (head && !end)
                        continue;
                if (head) {
                        size_t line = (size_t)(end - buf) + 1;
                        how = outcome_of(str_of(buf, line - 1));
                        memmove(buf, end + 1, n - line);
                        n -= line;
                        head = false;
                }
                fwrite(buf, 1, n, how == ASK_OK ? stdout : stderr);
                n = 0;
        }
        if (head)
                fprintf(stderr, "weir: it ended without an answer\n");
        return (int)how;
}

int ask_send(const char *path, str line)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), status;
        char text[ASK_LINE];

        if (fd < 0 || !str_copyz(a.sun_path, sizeof(a.sun_path), str_z(path))) {
                errno = fd < 0 ? errno : ENAMETOOLONG;
                return ask_failed(path);
        }
        snprintf(text, sizeof(text), "%.*s\n", STR_ARG(line));
        if (connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0 ||
            send(fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text)) {
                close(fd);
                return ask_failed(path);
        }
        status = read_answer(fd);
        close(fd);
        return status;
}
