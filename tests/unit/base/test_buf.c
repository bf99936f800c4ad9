/*
 * The buffer against a model, a flat array of bytes: two buffers, random operations, and after
 * each of them both must hold the model's bytes and a sensible amount of memory.
 */
#include "base/buf.c"

#include "unit.h"

#define MODEL_MAX (400 * KIB)

struct model {
        struct buf b;
        char *p;
        size_t n;
};

static uint64_t seed = 42;

static uint64_t draw(uint64_t below)
{
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        return seed % below;
}

/* Mostly small, sometimes around the borders of a chunk, sometimes several chunks. */
static size_t draw_any_size(void)
{
        switch (draw(5)) {
        case 0:
                return draw(4);
        case 1:
                return draw(300);
        case 2:
                return SMALL - 3 + draw(6);
        case 3:
                return BUF_CHUNK - 3 + draw(6);
        default:
                return draw(3 * BUF_CHUNK);
        }
}

static size_t draw_size(size_t max)
{
        size_t n = draw_any_size();

        return MIN(n, max);
}

static void fill_random(char *p, size_t n)
{
        for (size_t i = 0; i < n; i++)
                p[i] = (char)draw(256);
}

static void shift(struct model *m, size_t n)
{
        memmove(m->p, m->p + n, m->n - n);
        m->n -= n;
}

static void check_model(const struct model *m)
{
        struct iovec iov[200];
        size_t sum = 0, chunks = 0;
        int n = buf_iov(&m->b, iov, 200, SIZE_MAX);

        assert_int_equal(m->b.n, m->n);
        for (int i = 0; i < n; i++) {
                assert_memory_equal(iov[i].iov_base, m->p + sum, iov[i].iov_len);
                sum += iov[i].iov_len;
        }
        assert_int_equal(sum, m->n);
        for (struct chunk *c = m->b.first; c; c = c->next) {
                assert_true(c->off < c->end && c->end <= c->cap);
                chunks++;
        }
        assert_true((m->b.first == NULL) == (m->n == 0));
        assert_true(m->b.last == NULL || m->b.last->next == NULL);
        /* of two neighbours one holds SMALL bytes, or the first is nearly full, or the first is
         * what was left of one that went */
        assert_true(chunks <= 3 + 2 * (m->n / SMALL));
}

static void op_put(struct model *m)
{
        static char bytes[3 * BUF_CHUNK];
        size_t n = draw_size(sizeof(bytes));

        fill_random(bytes, n);
        memcpy(m->p + m->n, bytes, n);
        m->n += n;
        buf_put(&m->b, bytes, n);
}

static void op_reserve(struct model *m)
{
        size_t n = draw_size(BUF_CHUNK), some = draw(draw(3) ? n + 1 : MIN(n, (size_t)40) + 1);
        char *p = buf_reserve(&m->b, n);

        if (draw(4) == 0)
                p = buf_reserve(&m->b, n); /* a reservation may be renewed */
        fill_random(p, some);
        memcpy(m->p + m->n, p, some);
        m->n += some;
        buf_commit(&m->b, some);
}

static void op_read(struct model *m)
{
        struct iovec iov[5];
        size_t want = draw_size(SIZE_MAX) + 1, sum = 0, take;
        int max = 2 + (int)draw(4), n;

        if (draw(4) == 0)
                (void)buf_read_iov(&m->b, draw_size(SIZE_MAX) + 1, iov, 5); /* nothing came of it */
        n = buf_read_iov(&m->b, want, iov, max);
        assert_in_range(n, 1, max);
        for (int i = 0; i < n; i++) {
                assert_true(iov[i].iov_len > 0);
                sum += iov[i].iov_len;
        }
        assert_true(sum >= MIN(want, (size_t)(max - 1) * BUF_CHUNK) && sum <= want);
        take = draw(3) == 0 ? 0 : draw(3) == 0 ? sum : draw(sum + 1);
        sum = take;
        for (int i = 0; i < n; i++) {
                size_t some = MIN(sum, iov[i].iov_len);
                fill_random(iov[i].iov_base, some);
                memcpy(m->p + m->n, iov[i].iov_base, some);
                m->n += some;
                sum -= some;
        }
        buf_commit_iov(&m->b, take);
}

static void op_prepend(struct model *m)
{
        char bytes[BUF_HEADROOM];
        size_t n = draw(sizeof(bytes)) + 1;
        bool fits = m->n > 0 && m->b.first->off >= n;

        fill_random(bytes, n);
        assert_true(buf_prepend(&m->b, bytes, n) == fits);
        if (fits) {
                memmove(m->p + n, m->p, m->n);
                memcpy(m->p, bytes, n);
                m->n += n;
        }
}

static void op_append(struct model *dst, const struct model *src)
{
        size_t n = draw_size(src->n);

        memcpy(dst->p + dst->n, src->p, n);
        dst->n += n;
        buf_append(&dst->b, &src->b, n);
}

static void op_drain(struct model *m)
{
        size_t n = draw(4) ? draw_size(m->n) : m->n;

        buf_drain(&m->b, n);
        shift(m, n);
}

static void op_move(struct model *dst, struct model *src)
{
        size_t n = draw(4) ? draw_size(src->n) : src->n;

        memcpy(dst->p + dst->n, src->p, n);
        dst->n += n;
        shift(src, n);
        buf_move(&dst->b, &src->b, n);
}

static void op_pullup(struct model *m)
{
        size_t n = draw_size(SIZE_MAX);
        str s = buf_pullup(&m->b, n);

        assert_int_equal(s.n, MIN(n, m->n));
        assert_memory_equal(s.p, m->p, s.n);
}

static void op_copy_out(struct model *m)
{
        static char bytes[3 * BUF_CHUNK];
        size_t n = draw_size(sizeof(bytes)), off = draw(m->n + 10), want;

        want = off < m->n ? MIN(n, m->n - off) : 0;
        assert_int_equal(buf_copy_out(&m->b, off, bytes, n), want);
        assert_memory_equal(bytes, m->p + MIN(off, m->n), want);
}

static void op_iov(struct model *m)
{
        struct iovec iov[4];
        size_t limit = draw_size(SIZE_MAX), sum = 0;
        int n = buf_iov(&m->b, iov, 4, limit);

        for (int i = 0; i < n; i++) {
                assert_memory_equal(iov[i].iov_base, m->p + sum, iov[i].iov_len);
                sum += iov[i].iov_len;
        }
        assert_true(sum == MIN(limit, m->n) || (n == 4 && sum < limit));
}

static void agrees_with_model(void **state)
{
        struct model m[2] = {{.b = BUF_INIT}, {.b = BUF_INIT}};

        (void)state;
        for (int i = 0; i < 2; i++) {
                m[i].p = malloc(2 * MODEL_MAX);
                assert_non_null(m[i].p);
        }
        for (int round = 0; round < 60000; round++) {
                struct model *a = &m[draw(2)], *b = a == m ? m + 1 : m;
                if (a->n + b->n > MODEL_MAX) {
                        op_drain(a);
                        continue;
                }
                switch (draw(12)) {
                case 0:
                        op_put(a);
                        break;
                case 1:
                        op_reserve(a);
                        break;
                case 2:
                case 3:
                        op_read(a);
                        break;
                case 4:
                        op_drain(a);
                        break;
                case 5:
                case 6:
                        op_move(a, b);
                        break;
                case 7:
                        op_pullup(a);
                        break;
                case 8:
                        op_copy_out(a);
                        break;
                case 9:
                        op_prepend(a);
                        break;
                case 10:
                        op_append(a, b);
                        break;
                default:
                        op_iov(a);
                }
                check_model(a);
                check_model(b);
        }
        for (int i = 0; i < 2; i++) {
                buf_clear(&m[i].b);
                assert_null(m[i].b.first);
                free(m[i].p);
        }
        buf_thread_end();
}

static void whole_chunks_are_not_copied(void **state)
{
        struct buf a = BUF_INIT, b = BUF_INIT;
        const char *at;

        (void)state;
        memset(buf_reserve(&a, BUF_CHUNK), 'x', BUF_CHUNK);
        buf_commit(&a, BUF_CHUNK);
        at = buf_front(&a).p;
        buf_puts(&b, STR("head"));
        buf_move(&b, &a, BUF_CHUNK);
        assert_null(a.first);
        assert_int_equal(b.n, BUF_CHUNK + 4);
        assert_ptr_equal(b.last->data + BUF_HEADROOM, at);
        /* most of a chunk: the rest is what gets copied */
        buf_drain(&b, 4);
        assert_true(buf_prepend(&b, "frame", 5));
        assert_ptr_equal(buf_front(&b).p + 5, at);
        buf_drain(&b, 5);
        buf_move(&a, &b, BUF_CHUNK - 10);
        assert_ptr_equal(buf_front(&a).p, at);
        assert_int_equal(b.n, 10);
        assert_ptr_not_equal(buf_front(&b).p, at + BUF_CHUNK - 10);
        buf_clear(&a);
        buf_clear(&b);
        buf_thread_end();
}

static void small_pieces_share_chunks(void **state)
{
        struct buf a = BUF_INIT, b = BUF_INIT;

        (void)state;
        for (int i = 0; i < 1000; i++) {
                *buf_reserve(&a, BUF_CHUNK) = 'x'; /* as a TLS record of one byte does */
                buf_commit(&a, 1);
        }
        assert_int_equal(buf_held(&a), CAP);
        buf_clear(&a);
        for (int i = 0; i < 1000; i++) {
                memset(buf_reserve(&a, BUF_CHUNK), 'y', BUF_CHUNK);
                buf_commit(&a, BUF_CHUNK);
                buf_drain(&a, BUF_CHUNK - 1); /* one byte at the very end of its chunk */
                buf_move(&b, &a, 1);
        }
        assert_int_equal(b.n, 1000);
        assert_int_equal(buf_held(&b), CAP);
        buf_clear(&b);
        buf_thread_end();
}

static void uncommitted_room_is_given_back(void **state)
{
        struct buf b = BUF_INIT, other = BUF_INIT;
        struct iovec iov[2];

        (void)state;
        assert_int_equal(buf_read_iov(&b, 100, iov, 2), 1);
        assert_int_equal(iov[0].iov_len, 100);
        buf_commit_iov(&b, 0);
        assert_null(b.first);
        buf_puts(&b, STR("x"));
        assert_int_equal(buf_read_iov(&b, 2 * BUF_CHUNK, iov, 2), 2);
        assert_int_equal(iov[0].iov_len, BUF_CHUNK - 1);
        assert_int_equal(iov[1].iov_len, BUF_CHUNK);
        buf_commit_iov(&b, 3);
        assert_int_equal(buf_held(&b), CAP);
        assert_non_null(buf_reserve(&b, BUF_CHUNK));
        buf_clear(&b); /* with the reservation */
        assert_null(b.first);
        assert_int_equal(buf_held(&b), 0);
        assert_non_null(buf_reserve(&b, 1)); /* not committed: what comes next may be anything */
        buf_puts(&other, STR("yz"));
        buf_move(&b, &other, 2);
        ASSERT_STR(buf_front(&b), "yz");
        assert_int_equal(buf_iov(&b, iov, 2, SIZE_MAX), 1);
        assert_non_null(buf_reserve(&b, BUF_CHUNK));
        buf_puts(&b, STR("!"));
        ASSERT_STR(buf_pullup(&b, 3), "yz!");
        assert_int_equal(buf_held(&b), CAP);
        assert_non_null(buf_reserve(&b, BUF_CHUNK));
        buf_drain(&b, 3);
        assert_null(b.first);
        buf_thread_end();
        assert_int_equal(recycled.n, 0);
}

static void what_was_in_use_at_once_is_kept_until_it_is_trimmed(void **state)
{
        struct buf b = BUF_INIT;
        static char zeros[BUF_CHUNK];
        unsigned many = 3000;

        (void)state;
        for (unsigned i = 0; i < many; i++)
                buf_put(&b, zeros, BUF_CHUNK);
        buf_clear(&b);
        assert_int_equal(recycled.n, many);
        assert_int_equal(buf_thread_trim(), 0);        /* all were needed since */
        assert_true(buf_thread_trim() < many * WHOLE); /* not all in one go */
        assert_true(buf_thread_trim() > 0);
        assert_int_equal(recycled.n, 0);
        buf_thread_end();
        assert_null(recycled.free);
}

static void recycled_chunks_are_poisoned(void **state)
{
        struct buf b = BUF_INIT;
        const char *at;

        (void)state;
        buf_puts(&b, STR("x"));
        at = buf_front(&b).p;
        buf_clear(&b);
        assert_ptr_equal(((struct chunk *)recycled.free)->data + BUF_HEADROOM, at);
#ifdef WEIR_ASAN
        assert_true(__asan_address_is_poisoned(at));
        assert_true(__asan_address_is_poisoned(at + BUF_CHUNK - 1));
#endif
        memset(buf_reserve(&b, BUF_CHUNK), 'y', BUF_CHUNK); /* and may be used again */
        assert_ptr_equal(b.first->data + BUF_HEADROOM, at);
        buf_commit(&b, 0);
        buf_thread_end();
}

static void formats(void **state)
{
        struct buf b = BUF_INIT;
        str s;

        (void)state;
        buf_printf(&b, "%s-%d", "a", 5);
        ASSERT_STR(buf_front(&b), "a-5");
        buf_clear(&b);
        for (int n = 1020; n < 1030; n++) {
                buf_printf(&b, "%0*d", n, 7);
                s = buf_pullup(&b, SIZE_MAX);
                assert_int_equal(s.n, n);
                assert_int_equal(s.p[n - 1], '7');
                buf_clear(&b);
        }
        ASSERT_STR(buf_front(&b), "");
        ASSERT_STR(buf_pullup(&b, 5), "");
        buf_thread_end();
}

static void drain_too_much(void *arg)
{
        buf_drain(arg, 1);
}

static void misuse_aborts(void **state)
{
        struct buf b = BUF_INIT;

        (void)state;
        ASSERT_ABORTS(drain_too_much, &b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(agrees_with_model),
                cmocka_unit_test(whole_chunks_are_not_copied),
                cmocka_unit_test(small_pieces_share_chunks),
                cmocka_unit_test(uncommitted_room_is_given_back),
                cmocka_unit_test(what_was_in_use_at_once_is_kept_until_it_is_trimmed),
                cmocka_unit_test(recycled_chunks_are_poisoned),
                cmocka_unit_test(formats),
                cmocka_unit_test(misuse_aborts),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
