/* Heads as bytes: what is added, what never passes, and that a parser reads the same out of it. */
#include "http/h1_write.c"

#include "../base/unit.h"

#include "http/h1_parse.h"

static struct arena *arena;
static struct buf out;

static int begin(void **state)
{
        (void)state;
        arena = arena_new(0);
        return 0;
}

static int end(void **state)
{
        (void)state;
        arena_free(arena);
        buf_clear(&out);
        arena_thread_end();
        buf_thread_end();
        return 0;
}

static void expect(const char *want)
{
        str got = buf_pullup(&out, out.n);
        if (!str_eq(got, str_z(want)))
                fail_msg("wrote:\n%.*s\nnot:\n%s", STR_ARG(got), want);
        buf_clear(&out);
}

static void add(struct msg *m, const char *name, const char *value)
{
        fields_add(arena, &m->fields, field_id_of(str_z(name)), str_z(name), str_z(value));
}

static struct msg request(void)
{
        return (struct msg){.method = METHOD_POST,
                            .method_text = STR("POST"),
                            .target = STR("/p?q"),
                            .authority = STR("h:8")};
}

static void requests(void **state)
{
        struct msg m = request();

        (void)state;
        add(&m, "host", "wrong");
        add(&m, "X-a", "1");
        add(&m, "Content-Length", "99");
        add(&m, "Transfer-Encoding", "gzip");
        add(&m, "Connection", "x");
        add(&m, "Expect", "100-continue");
        add(&m, "Gone", "x");
        add(&m, "Empty", "");
        fields_del(&m.fields, STR("gone"));
        h1_write_request(&out, &m, true);
        expect("POST /p?q HTTP/1.1\r\nHost: h:8\r\nX-a: 1\r\nEmpty: \r\n\r\n");

        m.framing = FRAMING_LENGTH;
        m.length = UINT64_MAX;
        h1_write_request(&out, &m, false);
        expect("POST /p?q HTTP/1.1\r\nHost: h:8\r\nX-a: 1\r\nEmpty: \r\n"
               "Content-Length: 18446744073709551615\r\nConnection: close\r\n\r\n");

        m.framing = FRAMING_CHUNKED;
        m.upgrade = STR("websocket");
        m.authority = STR_NONE;
        h1_write_request(&out, &m, true);
        expect("POST /p?q HTTP/1.1\r\nHost: \r\nX-a: 1\r\nEmpty: \r\n"
               "Transfer-Encoding: chunked\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
}

#define DATE "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"

static void responses(void **state)
{
        struct msg m = {.status = 200, .phrase = STR("Fine"), .length = 3};
        struct h1_response_form form = {
                .version = 11, .keep_alive = true, .framing = FRAMING_LENGTH};

        (void)state;
        h1_write_response(&out, &m, &form);
        expect("HTTP/1.1 200 Fine\r\n" DATE "Content-Length: 3\r\n\r\n");
        form.version = 10;
        h1_write_response(&out, &m, &form);
        expect("HTTP/1.1 200 Fine\r\n" DATE "Content-Length: 3\r\nConnection: keep-alive\r\n\r\n");
        form.keep_alive = false;
        form.framing = FRAMING_CLOSE;
        m.phrase = STR_NONE;
        h1_write_response(&out, &m, &form);
        expect("HTTP/1.1 200 OK\r\n" DATE "Connection: close\r\n\r\n");

        form = (struct h1_response_form){
                .version = 11, .keep_alive = true, .framing = FRAMING_CHUNKED};
        add(&m, "Date", "today");
        add(&m, "Content-Length", "7");
        add(&m, "Keep-Alive", "x");
        h1_write_response(&out, &m, &form);
        expect("HTTP/1.1 200 OK\r\nDate: today\r\nTransfer-Encoding: chunked\r\n\r\n");

        form.framing = FRAMING_NONE;
        form.no_body = true;
        h1_write_response(&out, &m, &form);
        expect("HTTP/1.1 200 OK\r\nDate: today\r\nContent-Length: 7\r\n\r\n");
        form.no_body = false;
        h1_write_response(&out, &m, &form);
        expect("HTTP/1.1 200 OK\r\nDate: today\r\nContent-Length: 0\r\n\r\n");
        m.status = 204;
        h1_write_response(&out, &m, &form);
        expect("HTTP/1.1 204 No Content\r\nDate: today\r\n\r\n");
        form.no_body = true; /* what the server said of its length means nothing */
        h1_write_response(&out, &m, &form);
        expect("HTTP/1.1 204 No Content\r\nDate: today\r\n\r\n");

        m.status = 101;
        m.upgrade = STR("websocket");
        form.framing = FRAMING_TUNNEL;
        h1_write_response(&out, &m, &form);
        expect("HTTP/1.1 101 Switching Protocols\r\nDate: today\r\n"
               "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n");

        m.status = 103;
        add(&m, "Link", "</a>");
        h1_write_interim(&out, &m);
        expect("HTTP/1.1 103 Early Hints\r\nDate: today\r\nLink: </a>\r\n\r\n");
        m.status = 799;
        h1_write_interim(&out, &m);
        expect("HTTP/1.1 799 \r\nDate: today\r\nLink: </a>\r\n\r\n");
}

static void chunks(void **state)
{
        struct msg m = {0};

        (void)state;
        h1_write_chunk_head(&out, 0x1f);
        h1_write_chunk_head(&out, UINT64_MAX);
        h1_write_last_chunk(&out, NULL);
        expect("1f\r\nffffffffffffffff\r\n0\r\n\r\n");
        add(&m, "X-Sum", "1");
        add(&m, "Content-Length", "5");
        add(&m, "Cookie", "x");
        h1_write_last_chunk(&out, &m.fields);
        expect("0\r\nX-Sum: 1\r\n\r\n");
}

/* Also when it is larger than a chunk, and when the buf has little room left. */
static void heads_of_any_size_read_back(void **state)
{
        (void)state;
        for (size_t size = 10; size < 50000; size += size / 3) {
                struct arena *a = arena_new(0);
                struct msg m = request(), back = {0};
                char *big = arena_alloc(a, size);
                memset(big, 'v', size);
                for (int i = 0; i < 3; i++)
                        fields_add(a, &m.fields, FIELD_OTHER, STR("X"), str_of(big, size));
                memset(buf_reserve(&out, BUF_CHUNK), ' ', BUF_CHUNK - 100);
                buf_commit(&out, BUF_CHUNK - 100);
                h1_write_request(&out, &m, true);
                buf_drain(&out, BUF_CHUNK - 100);
                assert_int_equal(h1_parse_request(a, buf_pullup(&out, out.n), &back), REASON_NONE);
                assert_int_equal(back.fields.n, 4);
                for (int i = 1; i < 4; i++)
                        assert_true(str_eq(back.fields.v[i].value, str_of(big, size)));
                buf_clear(&out);
                arena_free(a);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(requests),
                cmocka_unit_test(responses),
                cmocka_unit_test(chunks),
                cmocka_unit_test(heads_of_any_size_read_back),
        };
        return cmocka_run_group_tests(tests, begin, end);
}
