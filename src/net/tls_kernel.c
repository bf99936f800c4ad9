/*
 * Kernel TLS for sending: the kernel gets the keys and makes the records.
 *
 *    socket <- (kernel) <- io->out                 application data, from where it lies
 *    socket <- (kernel) <- enc <- (OpenSSL)        what the protocol says itself: type, length,
 * bytes
 *
 * The difficulty is that the kernel counts records from the moment it has the keys.  All that
 * OpenSSL has encrypted before must be in the socket by then, and nothing encrypted may follow:
 * there is no way back.  So a connection whose socket is full at that moment, or whose kernel,
 * cipher or socket does not fit, simply stays with OpenSSL.  And from then on OpenSSL writes
 * nothing but alerts and handshake messages, which wait in enc in the clear, each with its type.
 *
 * Sending only: OpenSSL 3.0 does not hand over the keys of TLS 1.3 for receiving, and the BIO reads
 * ahead.  The keys of a direction cannot be changed either (RFC 8446 4.6.3), see
 * tls_kernel_rekey_due.
 */
#include "net/io_type.h"
#include "net/tls_type.h"

#include "base/log.h"

#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

#define SLICES      16
#define HEADER      3 /* of a record in enc: its type, its length in host order */
#define RECORD_MOST (16 * KIB)

/* How long the structure is that OpenSSL hands over for the kernel; 0: not one of those we know. */
static socklen_t keys_size(const struct tls_crypto_info *keys)
{
        switch (keys->cipher_type) {
        case TLS_CIPHER_AES_GCM_128:
                return sizeof(struct tls12_crypto_info_aes_gcm_128);
        case TLS_CIPHER_AES_GCM_256:
                return sizeof(struct tls12_crypto_info_aes_gcm_256);
        case TLS_CIPHER_AES_CCM_128:
                return sizeof(struct tls12_crypto_info_aes_ccm_128);
        case TLS_CIPHER_CHACHA20_POLY1305:
                return sizeof(struct tls12_crypto_info_chacha20_poly1305);
        default:
                return 0;
        }
}

/* It is the same for every connection, so one line is enough; a peer that is gone already says
 * nothing about the kernel. */
static void say_why_not(int error)
{
        static atomic_bool said;

        if (error == ENOTCONN || atomic_exchange(&said, true))
                return;
        log_warn(NULL, "kernel_tls is on but the kernel does not take it (%s%s): weir encrypts",
                 strerror(error),
                 error == ENOENT ? "; is its module tls loaded? modprobe tls" : "");
}

/* Sends what is in enc and gives the kernel the keys.  False: it does not want them. */
static bool start(struct tls_peer *p, const void *keys)
{
        socklen_t n = keys_size(keys);

        if (n == 0 || io_send_buf(p->fd, &p->enc, &p->sock_error) != IO_SENT_ALL)
                return false;
        if (setsockopt(p->fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) < 0 ||
            setsockopt(p->fd, SOL_TLS, TLS_TX, keys, n) < 0) {
                say_why_not(errno);
                return false;
        }
        p->kernel = true;
        return true;
}

/* ---- the BIO ---- */

/* A record of at most 16 KiB that is no application data into enc. */
static void put(struct tls_peer *p, uint8_t type, str record)
{
        uint16_t n = (uint16_t)record.n;
        char header[HEADER];

        CHECK(p->kernel && record.n > 0 && record.n <= RECORD_MOST);
        header[0] = (char)type;
        memcpy(header + 1, &n, sizeof(n));
        buf_put(&p->enc, header, HEADER);
        buf_puts(&p->enc, record);
}

/* OpenSSL does not publish these two numbers. */
#define CTRL_SET_KTLS    72 /* num: for sending; ptr: the keys as the kernel wants them */
#define CTRL_RECORD_TYPE 74 /* num: of the next write */

static int bio_write(BIO *b, const char *in, int n)
{
        struct tls_peer *p = BIO_get_data(b);

        if (!p->kernel)
                return tls_bio_write(b, in, n);
        CHECK(p->said_type != 0);
        BIO_clear_retry_flags(b);
        put(p, p->said_type, str_of(in, (size_t)n));
        p->said_type = 0;
        return n;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
        struct tls_peer *p = BIO_get_data(b);

        switch (cmd) {
        case CTRL_SET_KTLS:
                return num != 0 && start(p, ptr);
        case BIO_CTRL_GET_KTLS_SEND:
                return p->kernel;
        case CTRL_RECORD_TYPE:
                p->said_type = (uint8_t)num;
                return 1;
        default:
                return tls_bio_ctrl(b, cmd, num, ptr);
        }
}

void tls_kernel_bio(BIO_METHOD *m)
{
        BIO_meth_set_write(m, bio_write);
        BIO_meth_set_ctrl(m, bio_ctrl);
}

void tls_kernel_count(const struct tls_peer *p, struct metric_slot *m)
{
        if (m != NULL)
                metric_add(metric_series(m, METRIC_TLS_KERNEL,
                                         p->kernel ? STR("result=\"kernel\"")
                                                   : STR("result=\"user\"")),
                           1);
}

/* ---- sending ---- */

/* Sends from the front of enc as a record of its type: how many bytes the kernel took, or -1. */
static ssize_t send_control(struct tls_peer *p)
{
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(uint8_t))];
        } control = {0};
        struct iovec iov[SLICES];
        struct msghdr msg = {.msg_iov = iov,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        ssize_t r;

        c->cmsg_level = SOL_TLS;
        c->cmsg_type = TLS_SET_RECORD_TYPE;
        c->cmsg_len = CMSG_LEN(sizeof(uint8_t));
        *CMSG_DATA(c) = p->control_type;
        msg.msg_iovlen = (size_t)buf_iov(&p->enc, iov, SLICES, p->control_left);
        do
                r = sendmsg(p->fd, &msg, MSG_NOSIGNAL);
        while (r < 0 && errno == EINTR);
        return r;
}

enum io_sent tls_kernel_flush(struct tls_peer *p, int *error)
{
        while (p->enc.n > 0) {
                ssize_t r;
                if (p->control_left == 0) {
                        char header[HEADER];
                        buf_copy_out(&p->enc, 0, header, HEADER);
                        buf_drain(&p->enc, HEADER);
                        p->control_type = (uint8_t)header[0];
                        memcpy(&p->control_left, header + 1, sizeof(p->control_left));
                }
                r = send_control(p);
                if (r < 0 && errno == EAGAIN)
                        return IO_SENT_SHORT;
                if (r < 0) {
                        *error = errno;
                        return IO_SENT_FAILED;
                }
                buf_drain(&p->enc, (size_t)r);
                p->control_left -= (uint16_t)r;
        }
        return IO_SENT_ALL;
}

/* The kernel takes a record whole even where TCP has no room for all of it, and hands the rest over
 * when there is.  A shutdown or close before that would lose the rest: so the end waits for room,
 * where sending the close_notify takes the rest along. */
static bool has_room(int fd)
{
        struct pollfd p = {.fd = fd, .events = POLLOUT};

        return poll(&p, 1, 0) != 0;
}

enum io_sent tls_kernel_send(struct io *io)
{
        struct tls_peer *p = io->tls;
        enum io_sent s = tls_kernel_flush(p, &io->error);

        if (s == IO_SENT_ALL)
                s = io_plain_send(io);
        if (s != IO_SENT_ALL || !io->shut_due || p->notified)
                return s;
        if (!has_room(p->fd))
                return IO_SENT_SHORT;
        p->notified = true;
        SSL_shutdown(p->ssl);
        return tls_kernel_flush(p, &io->error);
}

bool tls_kernel_tail(const struct io *io)
{
        const struct tls_peer *p = io->tls;

        return p->established && !p->notified && !io->failed && !io->cut && io_unsent(io) == 0 &&
               !has_room(p->fd);
}

bool tls_kernel_rekey_due(struct tls_peer *p)
{
        static const char alert[] = {SSL3_AL_FATAL, SSL_AD_INTERNAL_ERROR};
        int ignored;

        if (SSL_get_key_update_type(p->ssl) == SSL_KEY_UPDATE_NONE)
                return false;
        p->notified = true;
        put(p, SSL3_RT_ALERT, str_of(alert, sizeof(alert)));
        (void)tls_kernel_flush(p, &ignored);
        return true;
}
