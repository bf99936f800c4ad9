/*
 * sd_notify by hand: one datagram of KEY=VALUE lines to $NOTIFY_SOCKET.
 *
 * The difficulty: children must not find the variables, but a binary that takes over must.
 */
#include "daemon/notify.h"

#include "base/str.h"
#include "daemon/proc.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un target;
static socklen_t target_n;
static char *target_text;
static int64_t watchdog;
static char *watchdog_text;
static unsigned sockets;

static uint64_t env_number(const char *name)
{
        uint64_t v;

        return str_u64(str_z(getenv(name)), INT64_MAX, &v) ? v : 0;
}

/* Is what the variable says meant for this process? */
static bool for_us(const char *name)
{
        return getenv(name) == NULL || env_number(name) == (uint64_t)getpid();
}

static void begin_target(void)
{
        const char *path = getenv("NOTIFY_SOCKET");
        size_t n = path ? strlen(path) : 0;

        if (n < 2 || n >= sizeof(target.sun_path) || (path[0] != '/' && path[0] != '@'))
                return;
        target.sun_family = AF_UNIX;
        memcpy(target.sun_path, path, n);
        if (path[0] == '@')
                target.sun_path[0] = 0;
        target_n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
        target_text = strdup(path);
}

void notify_begin(void)
{
        begin_target();
        if (for_us("WATCHDOG_PID") && getenv("WATCHDOG_USEC")) {
                watchdog_text = strdup(getenv("WATCHDOG_USEC"));
                watchdog = (int64_t)env_number("WATCHDOG_USEC") / 2;
        }
        if (getenv("LISTEN_PID") && for_us("LISTEN_PID"))
                sockets = (unsigned)MIN(env_number("LISTEN_FDS"), UINT64_C(4096));
        for (unsigned i = 0; i < sockets; i++)
                (void)fcntl(3 + (int)i, F_SETFD, FD_CLOEXEC);
        unsetenv("NOTIFY_SOCKET");
        unsetenv("WATCHDOG_USEC");
        unsetenv("WATCHDOG_PID");
        unsetenv("LISTEN_PID");
        unsetenv("LISTEN_FDS");
        unsetenv("LISTEN_FDNAMES");
}

void notify_pass_on(void)
{
        if (target_text)
                setenv("NOTIFY_SOCKET", target_text, 1);
        if (watchdog_text)
                setenv("WATCHDOG_USEC", watchdog_text, 1);
}

static void say(const char *text)
{
        int fd;

        if (target_n == 0)
                return;
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return;
        (void)sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
                     (const struct sockaddr *)&target, target_n);
        close(fd);
}

void notify_ready(void)
{
        say("READY=1\nSTATUS=serving");
}

void notify_reloading(void)
{
        char text[96];

        snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%lld\nSTATUS=reloading",
                 (long long)proc_now());
        say(text);
}

void notify_stopping(void)
{
        say("STOPPING=1\nSTATUS=draining");
}

void notify_main_pid(int pid)
{
        char text[64];

        snprintf(text, sizeof(text), "MAINPID=%d", pid);
        say(text);
}

void notify_status(const char *status)
{
        char text[256];

        snprintf(text, sizeof(text), "STATUS=%s", status);
        say(text);
}

int64_t notify_watchdog(void)
{
        return watchdog;
}

void notify_alive(void)
{
        say("WATCHDOG=1");
}

unsigned notify_sockets(int *first)
{
        *first = 3;
        return sockets;
}
