/* Bodies through functions: chunks, queues and their bounds, waiting, whole bodies, failures. */
#include "proxy/filter.c"

#include "function.h"

static struct {
        unsigned calls, firsts, lasts, drained;
        uint64_t bytes;
        size_t longest;
        weir_rc verdict; /* of the calls that come */
        unsigned at;     /* of the call number at; 0: of all */
        int32_t mode;    /* body_mode of the head's hook */
        uint64_t max;
        weir_err err; /* of the last host call */
} hook;

#define BODY(name)                                                                                 \
        static weir_rc name(weir_req *r, const void *inst, void *ctx, const weir_chunk *c)
#define UNUSED_BODY (void)r, (void)inst, (void)ctx, (void)c

static void noted(const weir_chunk *c)
{
        assert_int_equal(c->size, sizeof(*c));
        assert_int_equal(c->offset, hook.bytes);
        hook.calls++;
        hook.firsts += (c->flags & WEIR_CHUNK_FIRST) != 0;
        hook.lasts += (c->flags & WEIR_CHUNK_LAST) != 0;
        hook.bytes += c->data.n;
        hook.longest = MAX(hook.longest, c->data.n);
}

HOOK(choose)
{
        (void)ctx;
        hook.err = weir->body_mode(r, inst ? *(const int32_t *)inst : hook.mode, hook.max);
        return WEIR_CONTINUE;
}

BODY(look)
{
        UNUSED_BODY;
        noted(c);
        return hook.at == 0 || hook.at == hook.calls ? hook.verdict : WEIR_CONTINUE;
}

static const weir_module looking = {.on_request = choose,
                                    .on_request_body = look,
                                    .on_response = choose,
                                    .on_response_body = look};

static int begin(void **state)
{
        memset(&hook, 0, sizeof(hook));
        hook.mode = WEIR_BODY_READ;
        return rig_begin(state);
}

/* ------------------------------------------------------------------ the ends of a body */

static struct filter *request_filter(void)
{
        return rig.txn.filter[WEIR_REQUEST];
}

/* A POST whose body is to come; its head has gone through the functions. */
static enum chain_result posted(void)
{
        rig_request(0);
        rig.req.req.method = METHOD_POST;
        rig.req.req.framing = FRAMING_CHUNKED;
        rig.req.req_body.end = false;
        return chain_request(rig.chain);
}

static void opened(void)
{
        assert_int_equal(posted(), CHAIN_CONTINUE);
        assert_non_null(request_filter());
        assert_int_equal(filter_open(request_filter()), CHAIN_CONTINUE);
}

static void came(const char *text, bool end)
{
        pipe_put(&rig.req.req_body, str_z(text));
        rig.req.req_body.end = end;
        filter_came(request_filter());
}

static void came_n(size_t n, bool end)
{
        char *text = malloc(n + 1);

        memset(text, 'x', n);
        text[n] = '\0';
        came(text, end);
        free(text);
}

/* What the server has got so far, taken away; the filter is told. */
static size_t took(void)
{
        struct pipe *p = rig.req.to_server;
        size_t n = p->data.n;

        buf_clear(&p->data);
        if (p->stalled)
                filter_room(request_filter());
        loop_turn(rig.loop, false);
        return n;
}

#define ASSERT_SENT(text)                                                                          \
        ASSERT_STR(buf_pullup(&rig.req.to_server->data, rig.req.to_server->data.n), text)

static size_t held(void)
{
        size_t n = 0;

        for (struct stage *s = request_filter()->first; s != NULL; s = s->next)
                n += s->now.n + s->emitted.n + s->out.n;
        return n + rig.req.to_server->data.n;
}

/* ------------------------------------------------------------------ passing by */

static void chunks_in_order(void **state)
{
        (void)state;
        rig_function(looking, NULL);
        rig_up();
        opened();
        assert_int_equal(hook.calls, 0);
        came("abc", false);
        ASSERT_SENT("abc");
        assert_int_equal(rig.ready[0], 1);
        came("de", false);
        came("", true);
        ASSERT_SENT("abcde");
        assert_true(rig.req.to_server->end);
        assert_int_equal(hook.calls, 3);
        assert_int_equal(hook.firsts, 1);
        assert_int_equal(hook.lasts, 1);
        assert_int_equal(rig_calls("continue"), 4);
        rig_request_end();
        assert_ptr_equal(rig.req.to_server, &rig.req.req_body);
}

static void no_chunk_is_longer_than_promised(void **state)
{
        (void)state;
        rig_function(looking, NULL);
        rig_up();
        opened();
        pipe_put(&rig.req.req_body, STR("x"));
        came_n(60000, true);
        buf_pullup(&rig.req.req_body.data, SIZE_MAX);
        assert_int_equal(hook.bytes, 60001);
        assert_int_equal(hook.longest, 16 * KIB);
        assert_int_equal(hook.lasts, 1);
        rig_request_end();
}

/* The server takes nothing: what is held stays within bounds, and the client is not asked for more.
 */
static void a_full_pipe_stalls_the_client(void **state)
{
        (void)state;
        rig_function(looking, NULL);
        rig_up();
        opened();
        for (int i = 0; i < 10; i++)
                came_n(60000, false);
        assert_true(held() <= 2 * 64 * KIB + 16 * KIB);
        assert_true(rig.req.to_server->stalled);
        rig.req.req_body.stalled = true;
        rig.room[0] = 0;
        while (pipe_full(&rig.req.req_body)) {
                assert_int_equal(rig.room[0], 0);
                assert_int_equal(took(), 64 * KIB);
        }
        assert_int_equal(rig.room[0], 1);
        while (took() > 0)
                ;
        came("x", true);
        assert_true(rig.req.to_server->end);
        rig_request_end();
}

static void room_is_asked_for_by_who_wants_it(void **state)
{
        (void)state;
        rig_function(looking, NULL);
        rig_up();
        opened();
        assert_int_equal(rig.room[0], 0); /* a 100 Continue must not go out yet */
        filter_room(request_filter());
        assert_int_equal(rig.room[0], 0);
        loop_turn(rig.loop, false);
        assert_int_equal(rig.room[0], 1);
        rig_request_end();
}

static void reading_only_cannot_change(void **state)
{
        (void)state;
        rig_function(looking, NULL);
        rig_up();
        hook.verdict = WEIR_REPLACED;
        opened();
        came("abc", true);
        assert_int_equal(rig.decided, CHAIN_CUT);
        assert_int_equal(rig.txn.reason, REASON_FUNCTION_ERROR);
        rig_request_end();
}

BODY(enough)
{
        UNUSED_BODY;
        noted(c);
        assert_int_equal(weir->body_mode(r, WEIR_BODY_READ, 0), WEIR_E_PHASE);
        assert_int_equal(weir->body_mode(r, WEIR_BODY_SKIP, 0), WEIR_OK);
        return WEIR_CONTINUE;
}

static void it_has_seen_enough(void **state)
{
        (void)state;
        rig_function((weir_module){.on_request = choose, .on_request_body = enough}, NULL);
        rig_up();
        opened();
        came("abc", false);
        came("def", false);
        came("", true);
        ASSERT_SENT("abcdef");
        assert_true(rig.req.to_server->end);
        assert_int_equal(hook.calls, 1);
        rig_request_end();
}

/* ------------------------------------------------------------------ rewriting */

BODY(twice)
{
        UNUSED_BODY;
        noted(c);
        assert_int_equal(weir->body_emit(r, c->data), WEIR_OK);
        assert_int_equal(weir->body_emit(r, c->data), WEIR_OK);
        return hook.verdict;
}
static const weir_module doubling = {.on_request = choose, .on_request_body = twice};

static void replaced_or_put_before(void **state)
{
        (void)state;
        hook.mode = WEIR_BODY_REWRITE;
        rig_function(doubling, NULL);
        rig_up();
        hook.verdict = WEIR_REPLACED;
        opened();
        came("ab", false);
        ASSERT_SENT("abab");
        hook.verdict = WEIR_CONTINUE;
        came("c", true);
        ASSERT_SENT("ababccc");
        rig_request_end();
}

BODY(dotted)
{
        UNUSED_BODY;
        weir->body_emit(r, c->data);
        weir->body_emit(r, WEIR_STR("."));
        return WEIR_REPLACED;
}

static void one_after_the_other(void **state)
{
        (void)state;
        hook.mode = WEIR_BODY_REWRITE;
        hook.verdict = WEIR_REPLACED;
        rig_function(doubling, NULL);
        rig_function((weir_module){.on_request = choose, .on_request_body = dotted}, NULL);
        rig_up();
        opened();
        came("ab", false);
        ASSERT_SENT("abab.");
        came("c", true);
        ASSERT_SENT("abab.cc.");
        assert_true(rig.req.to_server->end);
        rig_request_end();
}

static weir_rc filling(weir_req *r, const void *inst, void *ctx, void *arg)
{
        static char kilo[1024];
        weir_err err;

        (void)inst, (void)ctx;
        while ((err = weir->body_emit(r, weir_bytes(kilo, sizeof(kilo)))) == WEIR_OK)
                hook.bytes += sizeof(kilo);
        assert_int_equal(err, WEIR_E_FULL);
        hook.drained++;
        return weir->body_drain(r, filling, arg);
}

BODY(endless)
{
        (void)c;
        hook.calls++;
        return filling(r, inst, ctx, NULL);
}

/* What a function emits without end is bounded by what the server takes, however long that lasts.
 */
static void a_drain_waits_for_the_server_alone(void **state)
{
        uint64_t taken = 0;

        (void)state;
        hook.mode = WEIR_BODY_REWRITE;
        rig_function((weir_module){.on_request = choose, .on_request_body = endless}, NULL);
        rig_up();
        opened();
        came("x", false);
        assert_true(held() <= 3 * 64 * KIB + 1);
        assert_int_equal(hook.bytes, held() - 1);
        loop_advance(rig.loop, 10 * SEC); /* far beyond timeout= */
        assert_int_equal(rig.n_decided, 0);
        for (int i = 0; i < 20; i++) {
                taken += took();
                assert_true(held() <= 3 * 64 * KIB + 1);
        }
        assert_int_equal(taken, 20 * 64 * KIB);
        assert_int_equal(hook.calls, 1);
        rig_request_end();
}

BODY(too_much_at_once)
{
        static char big[64 * KIB + 1];

        UNUSED_BODY;
        assert_int_equal(weir->body_emit(r, weir_bytes(big, sizeof(big))), WEIR_E_FULL);
        assert_int_equal(weir->body_emit(r, weir_bytes(big, sizeof(big) - 1)), WEIR_OK);
        assert_int_equal(weir->body_emit(r, WEIR_STR("x")), WEIR_E_FULL);
        assert_int_equal(weir->body_emit(r, weir_bytes(NULL, 0)), WEIR_E_INVAL);
        return WEIR_REPLACED;
}

/* 64 KiB a call, whatever waits for the server. */
static void each_call_may_emit_as_much(void **state)
{
        (void)state;
        hook.mode = WEIR_BODY_REWRITE;
        rig_function((weir_module){.on_request = choose, .on_request_body = too_much_at_once},
                     NULL);
        rig_up();
        opened();
        came("x", false);
        came("x", false);
        came("x", false);
        came("x", false);
        assert_true(held() <= 3 * 64 * KIB);
        rig_request_end();
}

/* ------------------------------------------------------------------ waiting */

static weir_rc over(weir_req *r, const void *inst, void *ctx, void *arg)
{
        (void)r, (void)inst, (void)ctx, (void)arg;
        return WEIR_CONTINUE;
}

BODY(slow)
{
        UNUSED_BODY;
        noted(c);
        return weir->timer(r, 20 * MSEC, over, NULL);
}
static const weir_module waiting = {.on_request = choose, .on_request_body = slow};

static void while_it_waits_nothing_is_read(void **state)
{
        (void)state;
        rig_function(waiting, NULL);
        rig_up();
        opened();
        came("abc", false);
        came_n(50000, false);
        assert_int_equal(hook.calls, 1);
        assert_int_equal(rig.req.req_body.data.n, 50000);
        ASSERT_SENT("");
        loop_advance(rig.loop, 30 * MSEC);
        assert_int_equal(hook.calls, 2);
        ASSERT_SENT("abc");
        assert_true(rig.ready[0] > 0);
        rig_request_end(); /* its client has gone while it waits */
}

static void waiting_at_every_chunk_costs_no_memory(void **state)
{
        size_t before;

        (void)state;
        rig_function(waiting, NULL);
        rig_up();
        opened();
        came("abc", false);
        loop_advance(rig.loop, 30 * MSEC);
        before = arena_used(rig.req.arena);
        for (int i = 0; i < 100; i++) {
                came("abc", false);
                loop_advance(rig.loop, 30 * MSEC);
        }
        assert_int_equal(hook.calls, 101);
        assert_int_equal(arena_used(rig.req.arena), before);
        rig_request_end();
}

static void it_takes_too_long(void **state)
{
        (void)state;
        rig_function(waiting, NULL)->timeout = 10 * MSEC;
        rig_up();
        opened();
        came("abc", true);
        loop_advance(rig.loop, 15 * MSEC);
        assert_int_equal(rig.decided, CHAIN_CUT);
        assert_int_equal(rig.txn.reason, REASON_FUNCTION_TIMEOUT);
        assert_int_equal(rig_calls("timeout"), 1);
        rig_request_end();
}

/* ------------------------------------------------------------------ failing */

static void it_fails_open_for_good(void **state)
{
        (void)state;
        hook.mode = WEIR_BODY_REWRITE;
        rig_function((weir_module){.on_request = choose, .on_request_body = twice}, NULL)
                ->on_error = ON_ERROR_FAIL_OPEN;
        rig_up();
        hook.verdict = WEIR_REPLACED;
        opened();
        came("a", false);
        hook.verdict = WEIR_ERROR;
        came("b", false);
        came("c", false);
        came("", true);
        ASSERT_SENT("aabc");
        assert_int_equal(hook.calls, 2);
        assert_true(rig.req.to_server->end);
        rig_request_end();
}

static void nothing_moves_after_it_failed_closed(void **state)
{
        (void)state;
        rig_function(looking, NULL);
        rig_up();
        opened();
        came("a", false);
        hook.verdict = WEIR_ERROR;
        came("b", false);
        assert_int_equal(rig.n_decided, 1);
        ASSERT_SENT("a");
        assert_false(rig.req.to_server->end);
        rig_request_end();
}

BODY(refuse)
{
        UNUSED_BODY;
        return weir->respond(r, 418, WEIR_STR("tea"));
}

static void it_answers(void **state)
{
        (void)state;
        rig_function((weir_module){.on_request = choose, .on_request_body = refuse}, NULL);
        rig_up();
        opened();
        came("a", false);
        assert_int_equal(rig.decided, CHAIN_RESPOND);
        assert_int_equal(rig.req.res.status, 418);
        assert_null(request_filter());
        assert_ptr_equal(rig.req.to_server, &rig.req.req_body);
        rig_request_end();
}

/* ------------------------------------------------------------------ whole bodies */

static void the_next_function_waits_for_the_body(void **state)
{
        (void)state;
        hook.mode = WEIR_BODY_BUFFER;
        rig_function(looking, NULL);
        rig_up();
        assert_int_equal(posted(), CHAIN_WAIT);
        assert_int_equal(rig.wanted, 1);
        came("abc", false);
        came_n(100000, false);
        assert_int_equal(hook.calls, 0);
        assert_int_equal(rig.req.req_body.data.n, 0);
        came("d", true);
        assert_int_equal(hook.calls, 1);
        assert_int_equal(hook.longest, 100004);
        assert_int_equal(rig.n_resumed, 1);
        assert_int_equal(rig.resumed, CHAIN_CONTINUE);
        assert_int_equal(filter_open(request_filter()), CHAIN_CONTINUE);
        rig.req.req.length = 0;
        filter_frame(request_filter(), &rig.req.req);
        assert_int_equal(rig.req.req.framing, FRAMING_LENGTH);
        assert_int_equal(rig.req.req.length, 100004);
        assert_int_equal(took(), 64 * KIB);
        assert_int_equal(took(), 100004 - 64 * KIB);
        assert_true(rig.req.to_server->end);
        rig_request_end();
}

static void all_of_it_was_there(void **state)
{
        (void)state;
        hook.mode = WEIR_BODY_BUFFER;
        rig_function(looking, NULL);
        rig_up();
        rig_request(0);
        rig.req.req.framing = FRAMING_LENGTH;
        pipe_put(&rig.req.req_body, STR("abc"));
        assert_int_equal(chain_request(rig.chain), CHAIN_CONTINUE);
        assert_int_equal(hook.lasts, 1);
        assert_int_equal(rig.wanted, 0);
        rig_request_end();
}

static void it_is_larger_than_asked_for(void **state)
{
        (void)state;
        hook.mode = WEIR_BODY_BUFFER;
        hook.max = 10;
        rig_function(looking, NULL);
        rig_up();
        assert_int_equal(posted(), CHAIN_WAIT);
        came("0123456789", false);
        assert_int_equal(rig.n_resumed, 0);
        came("!", false);
        assert_int_equal(rig.resumed, CHAIN_CUT);
        assert_int_equal(rig.txn.reason, REASON_FUNCTION_BODY_MAX);
        assert_int_equal(rig.req.limit, 10);
        assert_int_equal(hook.calls, 0);
        rig_request_end();

        rig.route.eff.body_max = 5; /* where the function names no limit */
        hook.max = 0;
        assert_int_equal(posted(), CHAIN_WAIT);
        came("012345", false);
        assert_int_equal(rig.resumed, CHAIN_CUT);
        rig_request_end();
}

static void a_body_that_may_not_come(void **state)
{
        (void)state;
        hook.mode = WEIR_BODY_BUFFER;
        rig_function(looking, NULL);
        rig_up();
        rig.wanted_why = REASON_BODY_MAX;
        assert_int_equal(posted(), CHAIN_CUT);
        assert_int_equal(rig.txn.reason, REASON_BODY_MAX);
        rig_request_end();
}

static void whole_ones_fail_and_answer_like_heads(void **state)
{
        (void)state;
        hook.mode = WEIR_BODY_BUFFER;
        rig_function((weir_module){.on_request = choose, .on_request_body = refuse}, NULL);
        rig_up();
        assert_int_equal(posted(), CHAIN_WAIT);
        came("a", true);
        assert_int_equal(rig.resumed, CHAIN_RESPOND);
        assert_int_equal(rig.req.res.status, 418);
        rig_request_end();
}

BODY(drain_a_whole_one)
{
        static char big[100 * KIB];

        UNUSED_BODY;
        assert_int_equal(weir->body_drain(r, over, NULL), WEIR_ERROR);
        assert_int_equal(weir->body_emit(r, weir_bytes(big, sizeof(big))), WEIR_OK);
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, WEIR_STR("x"), WEIR_STR("1")), WEIR_OK);
        return WEIR_REPLACED;
}

/* Nobody takes of it before the verdict, so all of it must fit. */
static void a_whole_one_emits_up_to_its_limit(void **state)
{
        (void)state;
        hook.mode = WEIR_BODY_BUFFER;
        hook.max = 200 * KIB;
        rig_function((weir_module){.on_request = choose, .on_request_body = drain_a_whole_one},
                     NULL);
        rig_up();
        assert_int_equal(posted(), CHAIN_WAIT);
        came("a", true);
        assert_int_equal(rig.resumed, CHAIN_CONTINUE);
        assert_non_null(fields_find(&rig.req.req.fields, STR("x")));
        filter_frame(request_filter(), &rig.req.req);
        assert_int_equal(rig.req.req.length, 100 * KIB);
        rig_request_end();
}

/* A GET: one call, before its head goes on. */
static void no_body_is_one_empty_chunk(void **state)
{
        static const int32_t modes[] = {WEIR_BODY_READ, WEIR_BODY_REWRITE, WEIR_BODY_BUFFER};

        (void)state;
        rig_function(looking, NULL);
        rig_up();
        for (size_t i = 0; i < COUNT(modes); i++) {
                memset(&hook, 0, sizeof(hook));
                hook.mode = modes[i];
                rig_request(0);
                assert_int_equal(chain_request(rig.chain), CHAIN_CONTINUE);
                assert_int_equal(hook.calls, 1);
                assert_int_equal(hook.firsts + hook.lasts, 2);
                assert_int_equal(filter_open(request_filter()), CHAIN_CONTINUE);
                filter_frame(request_filter(), &rig.req.req);
                assert_int_equal(rig.req.req.framing, FRAMING_NONE);
                rig_request_end();
        }
}

/* ------------------------------------------------------------------ responses, heads, trailers */

static void answered(const char *body, bool end)
{
        struct request *r = &rig.req;

        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_CONTINUE);
        r->res = (struct msg){.status = 200, .framing = FRAMING_LENGTH, .length = strlen(body)};
        fields_add(r->arena, &r->res.fields, FIELD_ETAG, STR("ETag"), STR("\"1\""));
        r->res_body = (struct pipe){.high = PIPE_HIGH, .stalled = true, .end = end};
        pipe_put(&r->res_body, str_z(body));
}

static void a_response_that_had_begun(void **state)
{
        struct request *r = &rig.req;
        struct filter *f;

        (void)state;
        rig_function((weir_module){.on_response = choose, .on_response_body = look}, NULL);
        rig_up();
        answered("abc", false);
        assert_int_equal(chain_response(rig.chain), CHAIN_CONTINUE);
        f = rig.txn.filter[WEIR_RESPONSE];
        assert_non_null(f);
        assert_ptr_not_equal(r->from_server, &r->res_body);
        assert_int_equal(r->from_server->data.n, 3);
        assert_true(r->from_server->stalled);
        assert_int_equal(filter_open(f), CHAIN_CONTINUE);
        ASSERT_STR(buf_front(&r->res_body.data), "abc");
        assert_int_equal(rig.room[1], 1);
        filter_frame(f, &r->res);
        assert_int_equal(r->res.framing, FRAMING_LENGTH); /* it only reads */
        pipe_put(r->from_server, STR("d"));
        r->from_server->end = true;
        filter_came(f);
        assert_true(r->res_body.end);
        assert_int_equal(rig.ready[1], 1);
        rig_request_end();
}

static void rewriting_takes_fields_away(void **state)
{
        struct request *r = &rig.req;

        (void)state;
        hook.mode = WEIR_BODY_REWRITE;
        rig_function((weir_module){.on_response = choose, .on_response_body = look}, NULL);
        rig_up();
        answered("abc", false);
        assert_int_equal(chain_response(rig.chain), CHAIN_CONTINUE);
        assert_null(fields_get(&r->res.fields, FIELD_ETAG));
        filter_frame(rig.txn.filter[WEIR_RESPONSE], &r->res);
        assert_int_equal(r->res.framing, FRAMING_CHUNKED);
        rig_request_end();

        rig_request(0); /* no body can follow a HEAD: nothing announces one */
        rig.req.req.method = METHOD_HEAD;
        assert_int_equal(chain_request(rig.chain), CHAIN_CONTINUE);
        r->res = (struct msg){.status = 200, .framing = FRAMING_NONE};
        r->res_body.end = true;
        assert_int_equal(chain_response(rig.chain), CHAIN_CONTINUE);
        filter_frame(rig.txn.filter[WEIR_RESPONSE], &r->res);
        assert_int_equal(r->res.framing, FRAMING_NONE);
        rig_request_end();
}

BODY(trail)
{
        weir_str v = WEIR_STR("none");

        (void)inst, (void)ctx;
        if (!(c->flags & WEIR_CHUNK_LAST)) {
                assert_int_equal(weir->header_get(r, WEIR_REQUEST_TRAILERS, WEIR_STR("a"), &v), 0);
                assert_int_equal(
                        weir->header_set(r, WEIR_REQUEST_TRAILERS, WEIR_STR("a"), WEIR_STR("1")),
                        WEIR_E_PHASE);
                return WEIR_CONTINUE;
        }
        assert_int_equal(weir->header_get(r, WEIR_REQUEST_TRAILERS, WEIR_STR("a"), &v), 1);
        assert_int_equal(weir->header_get(r, WEIR_RESPONSE_TRAILERS, WEIR_STR("a"), &v), 0);
        assert_int_equal(weir->header_add(r, WEIR_REQUEST_TRAILERS, WEIR_STR("b"), v), WEIR_OK);
        assert_int_equal(weir->header_del(r, WEIR_REQUEST_TRAILERS, WEIR_STR("a")), 1);
        assert_int_equal(weir->header_set(r, WEIR_REQUEST_TRAILERS, WEIR_STR("host"), v),
                         WEIR_E_DENIED);
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, WEIR_STR("a"), v), WEIR_E_PHASE);
        assert_int_equal(weir->var_set(r, WEIR_STR("uri"), WEIR_STR("/")), WEIR_E_PHASE);
        assert_int_equal(weir->header_set(r, WEIR_RESPONSE, WEIR_STR("early"), v), WEIR_OK);
        return WEIR_CONTINUE;
}

static void trailers_with_the_last_chunk(void **state)
{
        struct request *r = &rig.req;

        (void)state;
        hook.mode = WEIR_BODY_REWRITE;
        rig_function((weir_module){.on_request = choose, .on_request_body = trail}, NULL);
        rig_up();
        opened();
        came("x", false);
        fields_add(r->arena, &r->req.trailers, FIELD_OTHER, STR("a"), STR("v"));
        came("", true);
        assert_null(fields_find(&r->req.trailers, STR("a")));
        ASSERT_STR(fields_find(&r->req.trailers, STR("b"))->value, "v");
        filter_frame(request_filter(), &r->req);
        assert_int_equal(r->req.framing, FRAMING_CHUNKED); /* for the trailers' sake */
        assert_int_equal(chain_response(rig.chain), CHAIN_CONTINUE);
        assert_non_null(fields_find(&r->res.fields, STR("early")));
        rig_request_end();
}

HOOK(choose_wrongly)
{
        UNUSED_HOOK;
        assert_int_equal(weir->body_mode(r, 4, 0), WEIR_E_INVAL);
        assert_int_equal(weir->body_mode(r, -1, 0), WEIR_E_INVAL);
        assert_int_equal(weir->body_mode(r, WEIR_BODY_READ, 0), WEIR_E_INVAL); /* no hook for it */
        assert_int_equal(weir->body_emit(r, WEIR_STR("x")), WEIR_E_PHASE);
        assert_int_equal(weir->body_drain(r, over, NULL), WEIR_ERROR);
        return WEIR_CONTINUE;
}

static void calls_out_of_place(void **state)
{
        (void)state;
        rig_function((weir_module){.on_request = choose_wrongly,
                                   .on_response = choose,
                                   .on_response_body = look},
                     NULL);
        rig_up();
        rig_request(0);
        assert_int_equal(chain_request(rig.chain), CHAIN_CONTINUE);
        assert_null(request_filter());
        rig.req.res = (struct msg){.status = 101, .framing = FRAMING_TUNNEL};
        assert_int_equal(chain_response(rig.chain), CHAIN_CONTINUE);
        assert_int_equal(hook.err, WEIR_E_PHASE);
        assert_null(rig.txn.filter[WEIR_RESPONSE]);
        rig_request_end();
}

/* A function that answers drops what others wanted of the response before. */
HOOK(replace)
{
        UNUSED_HOOK;
        return weir->respond(r, 500, WEIR_STR("other"));
}

static void an_answer_drops_what_was_asked_for(void **state)
{
        struct request *r = &rig.req;

        (void)state;
        rig_function((weir_module){.on_response = replace}, NULL);
        rig_function((weir_module){.on_response = choose, .on_response_body = look}, NULL);
        rig_up();
        answered("abc", false);
        assert_int_equal(chain_response(rig.chain), CHAIN_RESPOND);
        assert_null(rig.txn.filter[WEIR_RESPONSE]);
        assert_ptr_equal(r->from_server, &r->res_body);
        ASSERT_STR(buf_front(&r->res_body.data), "other");
        assert_int_equal(hook.calls, 0);
        rig_request_end();
}

#define T(name) cmocka_unit_test_setup_teardown(name, begin, rig_end)

int main(void)
{
        const struct CMUnitTest tests[] = {
                T(chunks_in_order),
                T(no_chunk_is_longer_than_promised),
                T(a_full_pipe_stalls_the_client),
                T(room_is_asked_for_by_who_wants_it),
                T(reading_only_cannot_change),
                T(it_has_seen_enough),
                T(replaced_or_put_before),
                T(one_after_the_other),
                T(a_drain_waits_for_the_server_alone),
                T(each_call_may_emit_as_much),
                T(while_it_waits_nothing_is_read),
                T(waiting_at_every_chunk_costs_no_memory),
                T(it_takes_too_long),
                T(it_fails_open_for_good),
                T(nothing_moves_after_it_failed_closed),
                T(it_answers),
                T(the_next_function_waits_for_the_body),
                T(all_of_it_was_there),
                T(it_is_larger_than_asked_for),
                T(a_body_that_may_not_come),
                T(whole_ones_fail_and_answer_like_heads),
                T(a_whole_one_emits_up_to_its_limit),
                T(no_body_is_one_empty_chunk),
                T(a_response_that_had_begun),
                T(rewriting_takes_fields_away),
                T(trailers_with_the_last_chunk),
                T(calls_out_of_place),
                T(an_answer_drops_what_was_asked_for),
        };

        weir = &api_host;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
