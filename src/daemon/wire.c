/*
 * Records over a SOCK_SEQPACKET pair.
 *
 * The difficulty: descriptors that arrive must be closed when nobody takes them, also when a record
 * is malformed.
 */
#include "daemon/wire.h"

#include "base/check.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

struct wire_head {
        uint32_t type, number, n, n_fds;
};

bool wire_pair(int fds[2])
{
        int size = 1 << 20;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0)
                return false;
        for (int i = 0; i < 2; i++) /* as much as the system allows */
                (void)setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
        return true;
}

bool wire_send_fds(int fd, enum wire_type type, uint32_t number, const void *data, size_t n,
                   const int *fds, unsigned n_fds)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int) * WIRE_FDS)];
        } control;
        struct wire_head head = {(uint32_t)type, number, (uint32_t)n, n_fds};
        struct iovec iov[2] = {{&head, sizeof(head)}, {(void *)(uintptr_t)data, n}};
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};

        CHECK(n <= WIRE_DATA && n_fds <= WIRE_FDS);
        if (n_fds > 0) {
                struct cmsghdr *c;
                memset(&control, 0, sizeof(control));
                msg.msg_control = &control;
                msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
                c = CMSG_FIRSTHDR(&msg);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
                memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
        }
        for (;;) {
                struct pollfd p = {.fd = fd, .events = POLLOUT};
                if (sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
                        return true;
                if (errno == EINTR)
                        continue;
                if ((errno != EAGAIN && errno != ENOBUFS) || poll(&p, 1, 1000) == 0)
                        return false;
        }
}

static void collect_fds(struct msghdr *msg, struct wire *w)
{
        for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
                size_t n;
                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                for (size_t i = 0; i < n; i++) {
                        int fd;
                        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
                        if (w->n_fds < WIRE_FDS)
                                w->fds[w->n_fds++] = fd;
                        else
                                close(fd);
                }
        }
}

enum wire_result wire_recv(int fd, struct wire *w)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int) * WIRE_FDS)];
        } control;
        struct wire_head head;
        struct iovec iov[2] = {{&head, sizeof(head)}, {w->data, sizeof(w->data)}};
        struct msghdr msg = {.msg_iov = iov,
                             .msg_iovlen = 2,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
        ssize_t r;

        w->n_fds = 0;
        w->n = w->type = w->number = 0;
        do
                r = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        while (r < 0 && errno == EINTR);
        if (r < 0 && errno == EAGAIN)
                return WIRE_NONE;
        if (r <= 0)
                return WIRE_END;
        collect_fds(&msg, w);
        if ((size_t)r < sizeof(head) || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
            (size_t)r != sizeof(head) + head.n || head.n_fds != w->n_fds) {
                wire_close(w); /* not ours, or cut: whoever sends such things is not listened to */
                return WIRE_END;
        }
        w->type = head.type;
        w->number = head.number;
        w->n = head.n;
        return WIRE_GOT;
}

void wire_close(struct wire *w)
{
        for (unsigned i = 0; i < w->n_fds; i++) {
                if (w->fds[i] >= 0)
                        close(w->fds[i]);
        }
        w->n_fds = 0;
}

int wire_take(struct wire *w, unsigned i)
{
        int fd = i < w->n_fds ? w->fds[i] : -1;

        if (fd >= 0)
                w->fds[i] = -1;
        return fd;
}

const void *wire_data(const struct wire *w, size_t size)
{
        return w->n == size ? w->data : NULL;
}
