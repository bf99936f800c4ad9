/*
 * Kernel TLS with a kernel that does as it is told: what is sent in which order and as what, when
 * the socket is full or takes a part, and what is done when the kernel has no TLS.  That the
 * records are right, tests/flow/test_kernel_tls.py shows.
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "base/defs.h"

static ssize_t fake_sendmsg(int fd, const struct msghdr *m, int flags);
static int fake_setsockopt(int fd, int level, int name, const void *p, socklen_t n);
static int fake_poll(struct pollfd *p, nfds_t n, int ms);

#define sendmsg    fake_sendmsg
#define setsockopt fake_setsockopt
#define poll       fake_poll
#include "net/tls_kernel.c"
#undef sendmsg
#undef setsockopt
#undef poll

#include "../base/unit.h"

#include <stdlib.h>
#include <unistd.h>

static char sent[32 * KIB]; /* "TYPE:bytes " for each record */
static ssize_t room;        /* of the socket: bytes that it takes, then EAGAIN */
static int broken;          /* errno of each sendmsg */
static int options[8], n_options, option_errno;
static socklen_t keys_n;
static bool writable;

static ssize_t fake_sendmsg(int fd UNUSED, const struct msghdr *m, int flags)
{
        struct cmsghdr *c = CMSG_FIRSTHDR(m);
        size_t n = 0, at = strlen(sent);

        assert_int_equal(flags, MSG_NOSIGNAL);
        assert_int_equal(c->cmsg_level, SOL_TLS);
        assert_int_equal(c->cmsg_type, TLS_SET_RECORD_TYPE);
        assert_int_equal(c->cmsg_len, CMSG_LEN(1));
        if (broken != 0 || room == 0) {
                errno = broken != 0 ? broken : EAGAIN;
                return -1;
        }
        at += (size_t)snprintf(sent + at, sizeof(sent) - at, "%d:", *CMSG_DATA(c));
        for (size_t i = 0; i < m->msg_iovlen; i++) {
                size_t some = MIN(m->msg_iov[i].iov_len, (size_t)room);
                memcpy(sent + at, m->msg_iov[i].iov_base, some);
                at += some;
                n += some;
                room -= (ssize_t)some;
        }
        strcpy(sent + at, " ");
        return (ssize_t)n;
}

static int fake_setsockopt(int fd UNUSED, int level, int name, const void *p UNUSED, socklen_t n)
{
        options[n_options++] = level << 8 | name;
        keys_n = n;
        errno = option_errno;
        return option_errno != 0 ? -1 : 0;
}

static int fake_poll(struct pollfd *p, nfds_t n, int ms)
{
        assert_int_equal(n, 1);
        assert_int_equal(p->events, POLLOUT);
        assert_int_equal(ms, 0);
        return writable;
}

static struct tls_peer *p;

static int up(void **state UNUSED)
{
        p = calloc(1, sizeof(*p));
        assert_non_null(p);
        p->fd = -1;
        sent[0] = '\0';
        room = 1000;
        broken = option_errno = n_options = 0;
        writable = true;
        return 0;
}

static int down(void **state UNUSED)
{
        buf_clear(&p->enc);
        free(p);
        buf_thread_end();
        return 0;
}

static void each_record_with_its_type(void **state UNUSED)
{
        int error = 0;

        p->kernel = true;
        put(p, 22, STR("ticket"));
        put(p, 22, STR("another"));
        put(p, 21, STR("al"));
        assert_int_equal(tls_kernel_flush(p, &error), IO_SENT_ALL);
        assert_string_equal(sent, "22:ticket 22:another 21:al ");
        assert_int_equal(p->enc.n, 0);
}

/* Nothing is lost, sent twice or out of order, and nobody takes enc for empty meanwhile. */
static void a_full_socket(void **state UNUSED)
{
        int error = 0;

        p->kernel = true;
        room = 0;
        put(p, 22, STR("ticket"));
        put(p, 21, STR("al"));
        for (int i = 0; i < 3; i++) {
                assert_int_equal(tls_kernel_flush(p, &error), IO_SENT_SHORT);
                assert_true(p->enc.n > 0);
        }
        assert_string_equal(sent, "");
        room = 6;
        assert_int_equal(tls_kernel_flush(p, &error), IO_SENT_SHORT);
        assert_string_equal(sent, "22:ticket ");
        assert_true(p->enc.n > 0);
        put(p, 22, STR("late"));
        room = 100;
        assert_int_equal(tls_kernel_flush(p, &error), IO_SENT_ALL);
        assert_string_equal(sent, "22:ticket 21:al 22:late ");
}

/* The rest follows as a record of the same type. */
static void a_part_is_taken(void **state UNUSED)
{
        int error = 0;

        p->kernel = true;
        put(p, 22, STR("ticket"));
        put(p, 21, STR("al"));
        room = 2;
        assert_int_equal(tls_kernel_flush(p, &error), IO_SENT_SHORT);
        room = 100;
        assert_int_equal(tls_kernel_flush(p, &error), IO_SENT_ALL);
        assert_string_equal(sent, "22:ti 22:cket 21:al ");
}

static void the_largest(void **state UNUSED)
{
        static char most[RECORD_MOST];
        int error = 0;

        p->kernel = true;
        room = sizeof(sent);
        memset(most, 'x', sizeof(most));
        put(p, 21, STR("al")); /* so that it does not begin where a chunk begins */
        put(p, 22, str_of(most, sizeof(most)));
        assert_int_equal(tls_kernel_flush(p, &error), IO_SENT_ALL);
        assert_int_equal(strlen(sent), strlen("21:al 22: ") + sizeof(most));
}

static void a_broken_socket(void **state UNUSED)
{
        int error = 0;

        p->kernel = true;
        broken = EPIPE;
        put(p, 21, STR("al"));
        assert_int_equal(tls_kernel_flush(p, &error), IO_SENT_FAILED);
        assert_int_equal(error, EPIPE);
}

/* ---- keys ---- */

static void keys_are_set(void **state UNUSED)
{
        static const struct {
                uint16_t cipher;
                socklen_t n;
        } all[] = {{TLS_CIPHER_AES_GCM_128, 40},
                   {TLS_CIPHER_AES_GCM_256, 56},
                   {TLS_CIPHER_AES_CCM_128, 40},
                   {TLS_CIPHER_CHACHA20_POLY1305, 56}};

        for (size_t i = 0; i < COUNT(all); i++) {
                struct tls_crypto_info info = {TLS_1_3_VERSION, all[i].cipher};
                p->kernel = false;
                n_options = 0;
                assert_true(start(p, &info));
                assert_true(p->kernel);
                assert_int_equal(n_options, 2);
                assert_int_equal(options[0], IPPROTO_TCP << 8 | TCP_ULP);
                assert_int_equal(options[1], SOL_TLS << 8 | TLS_TX);
                assert_int_equal(keys_n, all[i].n);
        }
}

static void another_cipher_or_kernel(void **state UNUSED)
{
        struct tls_crypto_info info = {TLS_1_3_VERSION, TLS_CIPHER_SM4_GCM};

        assert_false(start(p, &info));
        assert_int_equal(n_options, 0);
        info.cipher_type = TLS_CIPHER_AES_GCM_128;
        option_errno = ENOENT;
        assert_false(start(p, &info));
        assert_int_equal(n_options, 1);
        assert_false(p->kernel);
}

/* What OpenSSL has encrypted goes first, or the keys stay where they are. */
static void what_is_encrypted_goes_first(void **state UNUSED)
{
        struct tls_crypto_info info = {TLS_1_3_VERSION, TLS_CIPHER_AES_GCM_128};
        static char flight[64 * KIB];
        char got[16];
        int fd[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
        p->fd = fd[0];
        buf_puts(&p->enc, STR("flight"));
        assert_true(start(p, &info));
        assert_int_equal(p->enc.n, 0);
        assert_int_equal(read(fd[1], got, sizeof(got)), 6);
        assert_memory_equal(got, "flight", 6);

        p->kernel = false;
        n_options = 0;
        while (write(fd[0], flight, sizeof(flight)) > 0)
                ;
        buf_puts(&p->enc, STR("flight"));
        assert_false(start(p, &info));
        assert_int_equal(n_options, 0);
        assert_false(p->kernel);
        assert_int_equal(p->enc.n, 6);
        close(fd[0]);
        close(fd[1]);
}

/* ---- the end ---- */

static size_t unsent(const struct io *io UNUSED)
{
        return p->enc.n;
}

static const struct io_type type = {.unsent = unsent};

static void a_tail_is_what_a_close_would_lose(void **state UNUSED)
{
        struct io io = {.tls = p, .type = &type};

        p->kernel = p->established = true;
        assert_false(tls_kernel_tail(&io));
        writable = false;
        assert_true(tls_kernel_tail(&io));
        io.cut = true;
        assert_false(tls_kernel_tail(&io));
        io.cut = false;
        io.failed = true;
        assert_false(tls_kernel_tail(&io));
        io.failed = false;
        buf_puts(&io.out, STR("x"));
        assert_false(tls_kernel_tail(&io));
        buf_clear(&io.out);
        p->notified = true;
        assert_false(tls_kernel_tail(&io));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(each_record_with_its_type, up, down),
                cmocka_unit_test_setup_teardown(a_full_socket, up, down),
                cmocka_unit_test_setup_teardown(a_part_is_taken, up, down),
                cmocka_unit_test_setup_teardown(the_largest, up, down),
                cmocka_unit_test_setup_teardown(a_broken_socket, up, down),
                cmocka_unit_test_setup_teardown(keys_are_set, up, down),
                cmocka_unit_test_setup_teardown(another_cipher_or_kernel, up, down),
                cmocka_unit_test_setup_teardown(what_is_encrypted_goes_first, up, down),
                cmocka_unit_test_setup_teardown(a_tail_is_what_a_close_would_lose, up, down),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
