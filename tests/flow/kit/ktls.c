/*
 * A kernel with TLS for machines whose kernel has none: preloaded, it takes the keys that a program
 * sets on a socket (TCP_ULP, TLS_TX) and makes the records of what is sent from then on.
 *
 * It is as unkind as the kernel at its worst.  A record is taken whole where TCP has no room for
 * all of it, and an alert even behind such a one; the rest goes when there is room, from a thread,
 * and is lost if the socket is shut down or closed before.  Nothing else may have been sent under
 * the same keys, so one record too many, one too few or one of the wrong type breaks the session at
 * the client.
 *
 * KTLS_REPORT names a file that gets a line for each thing it does:
 *     keys VERSION CIPHER      a socket's keys were set
 *     data N                   a record of N bytes of application data
 *     control TYPE N           any other record
 *     held N                   TCP had no room for the last N bytes of a record
 *     full                     a call was answered with EAGAIN
 *     lost N                   bytes that were taken and never sent
 * KTLS_SNDBUF is the size of the socket's send buffer from then on.  KTLS_REFUSE names the one
 * cipher (as in linux/tls.h) whose keys are not taken.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define SOCKETS    4096
#define PLAIN_MAX  16384
#define RECORD_MAX (PLAIN_MAX + 64)
#define ALERT      21
#define DATA       23

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

/* A socket of the program.  Invariant: left > 0 only with keys; all under lock. */
static struct sock {
        bool ulp, keys;
        int version, cipher;
        uint8_t key[32], iv[12]; /* salt, then what the kernel calls iv */
        uint64_t seq;
        uint8_t rest[2 * RECORD_MAX]; /* of a record that TCP took in part, and what follows it */
        size_t at, left;
} socks[SOCKETS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static pid_t pusher_of; /* the process that has the thread */

#define REAL(name, ret, ...)                                                                       \
        static ret (*real)(__VA_ARGS__);                                                           \
        if (real == NULL)                                                                          \
        real = (ret(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static ssize_t real_write(int fd, const void *p, size_t n)
{
        REAL("write", ssize_t, int, const void *, size_t);
        return real(fd, p, n);
}

static int real_close(int fd)
{
        REAL("close", int, int);
        return real(fd);
}

static ssize_t real_sendmsg(int fd, const struct msghdr *m, int flags)
{
        REAL("sendmsg", ssize_t, int, const struct msghdr *, int);
        return real(fd, m, flags);
}

static ssize_t send_plain(int fd, const void *p, size_t n)
{
        struct iovec iov = {(void *)p, n};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
        ssize_t r;

        do
                r = real_sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        while (r < 0 && errno == EINTR);
        return r;
}

static void report(const char *what, long a, long b)
{
        const char *path = getenv("KTLS_REPORT");
        int saved = errno, fd, n;
        char line[64];

        if (path == NULL || (fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC)) < 0)
                return;
        n = snprintf(line, sizeof(line),
                     a < 0   ? "%s\n"
                     : b < 0 ? "%s %ld\n"
                             : "%s %ld %ld\n",
                     what, a, b);
        if (real_write(fd, line, (size_t)n) != n)
                abort();
        real_close(fd);
        errno = saved;
}

/* ---- records ---- */

static void put_number(uint8_t *p, uint64_t v, int n)
{
        while (n-- > 0) {
                p[n] = (uint8_t)v;
                v >>= 8;
        }
}

static uint64_t number(const uint8_t *p)
{
        uint64_t v = 0;

        for (int i = 0; i < 8; i++)
                v = v << 8 | p[i];
        return v;
}

static void seal(const struct sock *s, const uint8_t nonce[12], const uint8_t *aad, int aad_n,
                 const uint8_t *in, int n, uint8_t *out)
{
        const EVP_CIPHER *c = s->cipher == TLS_CIPHER_AES_GCM_128   ? EVP_aes_128_gcm()
                              : s->cipher == TLS_CIPHER_AES_GCM_256 ? EVP_aes_256_gcm()
                                                                    : EVP_chacha20_poly1305();
        EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
        int some;

        if (EVP_EncryptInit_ex(x, c, NULL, s->key, nonce) != 1 ||
            EVP_EncryptUpdate(x, NULL, &some, aad, aad_n) != 1 ||
            EVP_EncryptUpdate(x, out, &some, in, n) != 1 ||
            EVP_EncryptFinal_ex(x, out + n, &some) != 1 ||
            EVP_CIPHER_CTX_ctrl(x, EVP_CTRL_AEAD_GET_TAG, 16, out + n) != 1)
                abort();
        EVP_CIPHER_CTX_free(x);
}

/* RFC 5246 6.2.3.3, 5288, 7905 and RFC 8446 5.2; returns the record's length. */
static size_t make_record(const struct sock *s, uint8_t type, const uint8_t *in, size_t n,
                          uint8_t *out)
{
        uint8_t plain[PLAIN_MAX + 1], nonce[12], aad[13];
        bool v13 = s->version == TLS_1_3_VERSION;
        bool mixed = v13 || s->cipher == TLS_CIPHER_CHACHA20_POLY1305;
        size_t explicit_n = mixed ? 0 : 8, inner = n + v13, total = explicit_n + inner + 16;

        memcpy(plain, in, n);
        plain[n] = type;
        memcpy(nonce, s->iv, sizeof(nonce));
        for (int i = 0; mixed && i < 8; i++)
                nonce[4 + i] ^= (uint8_t)(s->seq >> (56 - 8 * i));
        out[0] = v13 ? DATA : type;
        put_number(out + 1, 0x0303, 2);
        put_number(out + 3, total, 2);
        memcpy(out + 5, nonce + 4, explicit_n);
        put_number(aad, s->seq, 8);
        aad[8] = type;
        put_number(aad + 9, 0x0303, 2);
        put_number(aad + 11, n, 2);
        seal(s, nonce, v13 ? out : aad, v13 ? 5 : 13, plain, (int)inner, out + 5 + explicit_n);
        return 5 + total;
}

static void count_record(struct sock *s)
{
        s->seq++;
        if (s->version != TLS_1_3_VERSION && s->cipher != TLS_CIPHER_CHACHA20_POLY1305)
                put_number(s->iv + 4, number(s->iv + 4) + 1, 8);
}

/* ---- sending ---- */

/* Whether nothing is left over.  A broken socket takes what is left to its grave. */
static bool push(int fd, struct sock *s)
{
        ssize_t r;

        while (s->left > 0) {
                r = send_plain(fd, s->rest + s->at, s->left);
                if (r < 0 && errno == EAGAIN)
                        return false;
                if (r < 0)
                        s->left = 0;
                else {
                        s->at += (size_t)r;
                        s->left -= (size_t)r;
                }
        }
        return true;
}

static void *pusher(void *arg)
{
        struct pollfd p[64];

        for (;;) {
                nfds_t n = 0;
                pthread_mutex_lock(&lock);
                for (;;) {
                        for (int fd = 0; fd < SOCKETS && n < 64; fd++)
                                if (socks[fd].left > 0)
                                        p[n++] = (struct pollfd){.fd = fd, .events = POLLOUT};
                        if (n > 0)
                                break;
                        pthread_cond_wait(&more, &lock);
                }
                pthread_mutex_unlock(&lock);
                poll(p, n, 10);
                pthread_mutex_lock(&lock);
                while (n-- > 0)
                        if (p[n].revents)
                                push(p[n].fd, &socks[p[n].fd]);
                pthread_mutex_unlock(&lock);
        }
        return arg;
}

static void wake_pusher(void)
{
        pthread_t t;

        if (pusher_of != getpid()) {
                pusher_of = getpid();
                if (pthread_create(&t, NULL, pusher, NULL) != 0)
                        abort();
                pthread_detach(t);
        }
        pthread_cond_signal(&more);
}

/* One record; 1: taken, 0: full, -1: broken. */
static int take(int fd, struct sock *s, uint8_t type, const uint8_t *p, size_t n)
{
        uint8_t record[RECORD_MAX];
        size_t total = make_record(s, type, p, n, record);
        ssize_t r = 0;

        if (!push(fd, s)) {
                if (type != ALERT || s->at + s->left + total > sizeof(s->rest))
                        return 0;
        } else {
                s->at = 0;
                r = send_plain(fd, record, total);
                if (r < 0)
                        return errno == EAGAIN ? 0 : -1;
        }
        count_record(s);
        if (type == DATA)
                report("data", (long)n, -1);
        else
                report("control", type, (long)n);
        if ((size_t)r < total) {
                memcpy(s->rest + s->at + s->left, record + r, total - (size_t)r);
                s->left += total - (size_t)r;
                report("held", (long)s->left, -1);
                wake_pusher();
        }
        return 1;
}

static ssize_t send_records(int fd, struct sock *s, uint8_t type, const struct iovec *iov,
                            size_t n_iov)
{
        static uint8_t plain[PLAIN_MAX]; /* under lock */
        size_t total = 0, n = 0;
        int r = 1;

        for (size_t i = 0; r == 1 && i < n_iov; i++) {
                for (size_t off = 0; r == 1 && off < iov[i].iov_len;) {
                        size_t some = iov[i].iov_len - off;
                        if (some > PLAIN_MAX - n)
                                some = PLAIN_MAX - n;
                        memcpy(plain + n, (const uint8_t *)iov[i].iov_base + off, some);
                        n += some;
                        off += some;
                        if (n < PLAIN_MAX)
                                continue;
                        r = take(fd, s, type, plain, n);
                        total += r == 1 ? n : 0;
                        n = 0;
                }
        }
        if (r == 1 && n > 0) {
                r = take(fd, s, type, plain, n);
                total += r == 1 ? n : 0;
        }
        if (total > 0)
                return (ssize_t)total;
        if (r == 0) {
                report("full", -1, -1);
                errno = EAGAIN;
        }
        return r == 1 ? 0 : -1;
}

/* The socket with its lock held, or NULL. */
static struct sock *of(int fd)
{
        if (fd < 0 || fd >= SOCKETS || !__atomic_load_n(&socks[fd].keys, __ATOMIC_RELAXED))
                return NULL;
        pthread_mutex_lock(&lock);
        return &socks[fd];
}

static ssize_t done(ssize_t r)
{
        int saved = errno;

        pthread_mutex_unlock(&lock);
        errno = saved;
        return r;
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
        struct sock *s = of(fd);
        uint8_t type = DATA;

        if (s == NULL)
                return real_sendmsg(fd, m, flags);
        for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL;
             c = CMSG_NXTHDR((struct msghdr *)m, c))
                if (c->cmsg_level == SOL_TLS && c->cmsg_type == TLS_SET_RECORD_TYPE)
                        type = *CMSG_DATA(c);
        if (flags & ~(MSG_NOSIGNAL | MSG_DONTWAIT)) {
                errno = EOPNOTSUPP;
                return done(-1);
        }
        return done(send_records(fd, s, type, m->msg_iov, m->msg_iovlen));
}

ssize_t send(int fd, const void *p, size_t n, int flags)
{
        struct iovec iov = {(void *)p, n};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

        return sendmsg(fd, &m, flags);
}

ssize_t write(int fd, const void *p, size_t n)
{
        struct iovec iov = {(void *)p, n};
        struct sock *s = of(fd);

        return s == NULL ? real_write(fd, p, n) : done(send_records(fd, s, DATA, &iov, 1));
}

ssize_t writev(int fd, const struct iovec *iov, int n)
{
        struct sock *s = of(fd);
        REAL("writev", ssize_t, int, const struct iovec *, int);

        return s == NULL ? real(fd, iov, n) : done(send_records(fd, s, DATA, iov, (size_t)n));
}

/* ---- keys, and the end ---- */

static int set_keys(struct sock *s, const struct tls_crypto_info *info, socklen_t n)
{
        const char *refused = getenv("KTLS_REFUSE");
        const struct tls12_crypto_info_aes_gcm_128 *a = (const void *)info;
        const struct tls12_crypto_info_aes_gcm_256 *b = (const void *)info;
        const struct tls12_crypto_info_chacha20_poly1305 *c = (const void *)info;
        socklen_t want = info->cipher_type == TLS_CIPHER_AES_GCM_128         ? sizeof(*a)
                         : info->cipher_type == TLS_CIPHER_AES_GCM_256       ? sizeof(*b)
                         : info->cipher_type == TLS_CIPHER_CHACHA20_POLY1305 ? sizeof(*c)
                                                                             : 0;

        errno = !s->ulp                                                 ? ENOPROTOOPT
                : s->keys                                               ? EBUSY
                : want == 0 || n != want                                ? EINVAL
                : refused != NULL && atoi(refused) == info->cipher_type ? EINVAL
                                                                        : 0;
        if (errno != 0)
                return -1;
        s->version = info->version;
        s->cipher = info->cipher_type;
        if (s->cipher == TLS_CIPHER_AES_GCM_128) {
                memcpy(s->key, a->key, sizeof(a->key));
                memcpy(s->iv, a->salt, 4);
                memcpy(s->iv + 4, a->iv, 8);
                s->seq = number(a->rec_seq);
        } else if (s->cipher == TLS_CIPHER_AES_GCM_256) {
                memcpy(s->key, b->key, sizeof(b->key));
                memcpy(s->iv, b->salt, 4);
                memcpy(s->iv + 4, b->iv, 8);
                s->seq = number(b->rec_seq);
        } else {
                memcpy(s->key, c->key, sizeof(c->key));
                memcpy(s->iv, c->iv, 12);
                s->seq = number(c->rec_seq);
        }
        __atomic_store_n(&s->keys, true, __ATOMIC_RELAXED);
        report("keys", s->version, s->cipher);
        return 0;
}

int setsockopt(int fd, int level, int name, const void *p, socklen_t n)
{
        REAL("setsockopt", int, int, int, int, const void *, socklen_t);
        const char *room = getenv("KTLS_SNDBUF");
        int r, bytes = room == NULL ? 0 : atoi(room);

        if (fd < 0 || fd >= SOCKETS ||
            !((level == IPPROTO_TCP && name == TCP_ULP) || level == SOL_TLS))
                return real(fd, level, name, p, n);
        pthread_mutex_lock(&lock);
        if (level == SOL_TLS) {
                r = name == TLS_TX ? set_keys(&socks[fd], p, n) : -1;
                if (r == 0 && bytes > 0 &&
                    real(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) < 0)
                        abort();
        } else {
                errno = socks[fd].ulp ? EEXIST : ENOENT;
                r = !socks[fd].ulp && n >= 3 && memcmp(p, "tls", 3) == 0 ? 0 : -1;
                socks[fd].ulp = true;
        }
        return (int)done(r);
}

static void lose(int fd)
{
        struct sock *s = of(fd);

        if (s == NULL)
                return;
        if (s->left > 0)
                report("lost", (long)s->left, -1);
        s->left = 0;
        done(0);
}

int shutdown(int fd, int how)
{
        REAL("shutdown", int, int, int);
        if (how != SHUT_RD)
                lose(fd);
        return real(fd, how);
}

int close(int fd)
{
        struct sock *s = of(fd);

        if (s != NULL) {
                push(fd, s);
                done(0);
                lose(fd);
        }
        if (fd >= 0 && fd < SOCKETS &&
            (s != NULL || __atomic_load_n(&socks[fd].ulp, __ATOMIC_RELAXED))) {
                pthread_mutex_lock(&lock);
                memset(&socks[fd], 0, sizeof(socks[fd]));
                pthread_mutex_unlock(&lock);
        }
        return real_close(fd);
}
