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

bool ask_parse(str line, struct ask_words *out)
{
        static const struct {
                str word;
                enum ask_verb verb;
        } verbs[] = {{STR_INIT("reload"), ASK_RELOAD}, {STR_INIT("reopen"), ASK_REOPEN},
                     {STR_INIT("drain"), ASK_DRAIN},   {STR_INIT("quit"), ASK_QUIT},
                     {STR_INIT("stop"), ASK_STOP},     {STR_INIT("status"), ASK_STATUS}};
        struct ask_words w = {.verb = ASK_SERVER};
        str rest;

        for (size_t i = 0; i < COUNT(verbs); i++) {
                if (str_eq(line, verbs[i].word)) {
                        out->verb = verbs[i].verb;
                        return true;
                }
        }
        if (!str_starts(line, STR("server ")) || str_has_ctl(line))
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

/* Prints what follows the first line; that line's word is the outcome. */
static int read_answer(int fd)
{
        char buf[4096];
        size_t n = 0;
        bool head = true, ok = false;

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
                        ok = str_eq(str_of(buf, line), STR("ok\n"));
                        memmove(buf, end + 1, n - line);
                        n -= line;
                        head = false;
                }
                fwrite(buf, 1, n, ok ? stdout : stderr);
                n = 0;
        }
        if (head)
                fprintf(stderr, "weir: it ended without an answer\n");
        return ok ? 0 : 1;
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
