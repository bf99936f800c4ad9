/*
 * A worker: all traffic, no rights.
 *
 *   master --channel--> control thread --fan--> every loop --> control thread --> master
 *
 * The difficulty: a generation is prepared on every loop or on none, and switched on all.  So what
 * the master says is taken one record at a time: while the loops are asked (a fan is out) the
 * channel waits.
 */
#include "daemon/worker.h"

#include "base/check.h"
#include "base/crypto.h"
#include "base/log.h"
#include "base/page.h"
#include "daemon/bundle.h"
#include "daemon/master.h"
#include "daemon/memfd.h"
#include "daemon/proc.h"
#include "http/downstream.h"
#include "proxy/accesslog.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define DRAIN_LOOK (20 * MSEC)

static struct worker *self; /* one per process, for callbacks without a context */

/* ------------------------------------------------------------------ speaking */

void worker_say(struct worker *w, enum wire_type type, uint32_t number, const void *data, size_t n,
                int fd)
{
        if (!wire_send_fds(w->channel, type, number, data, n, &fd, fd >= 0))
                _exit(1);
}

static void say_modules(struct worker *w, enum wire_type type, uint32_t number)
{
        const struct module *open[WIRE_COPIES];
        size_t n = MIN(module_list(open, WIRE_COPIES), (size_t)WIRE_COPIES);
        struct wire_copies_alive alive;

        memset(&alive, 0, sizeof(alive));
        alive.n = (uint32_t)n;
        for (size_t i = 0; i < n; i++)
                memcpy(alive.sha[i], open[i]->sha, sizeof(alive.sha[i]));
        worker_say(w, type, number, &alive, sizeof(alive), -1);
}

static void say_failed(struct worker *w, struct report *rep)
{
        str text = buf_pullup(&rep->out, rep->out.n);
        int fd = memfd_make("weir-report", &text, 1);

        worker_say(w, WIRE_FAILED, w->preparing_number, NULL, 0, fd);
        if (fd >= 0)
                close(fd);
        entrance_undo(w);
}

/* ------------------------------------------------------------------ fans */

static void fan_back(struct loop_msg *msg)
{
        struct fan_part *part = CONTAINER_OF(msg, struct fan_part, msg);
        struct fan *fan = part->fan;

        fan->ok = fan->ok && part->ok;
        if (--fan->waiting > 0)
                return;
        CHECK(event_add(fan->w->channel_event, NULL) == 0);
        fan->done(fan->w, fan->ok, fan->arg);
        free(fan);
}

static void fan_out(struct loop_msg *msg)
{
        struct fan_part *part = CONTAINER_OF(msg, struct fan_part, msg);

        part->ok = part->fan->on_loop(part->fan->w, part->loop, part->fan->arg);
        part->msg.fn = fan_back;
        loop_post(part->fan->w->house.control, &part->msg);
}

void worker_fan(struct worker *w, bool (*on_loop)(struct worker *, struct loop *, void *),
                void (*done)(struct worker *, bool, void *), void *arg)
{
        struct fan *fan = calloc(1, sizeof(*fan) + w->n_loops * sizeof(fan->parts[0]));

        CHECK(fan);
        *fan = (struct fan){.w = w,
                            .on_loop = on_loop,
                            .done = done,
                            .arg = arg,
                            .waiting = w->n_loops,
                            .ok = true};
        CHECK(event_del(w->channel_event) == 0);
        for (unsigned i = 0; i < w->n_loops; i++) {
                struct fan_part *part = &fan->parts[i];
                part->fan = fan;
                part->loop = w->loops[i];
                part->msg.fn = fan_out;
                loop_post(part->loop, &part->msg);
        }
}

/* ------------------------------------------------------------------ modules */

static struct worker_copy *find_copy(struct worker *w, const uint8_t sha[32])
{
        LIST_EACH (n, &w->copies) {
                struct worker_copy *c = CONTAINER_OF(n, struct worker_copy, link);
                if (memcmp(c->copy.sha, sha, sizeof(c->copy.sha)) == 0)
                        return c;
        }
        return NULL;
}

static const char *module_path(struct house *h, const struct module_conf *m, str bytes,
                               struct arena *a, str *error)
{
        struct worker *w = h->ctx;
        struct worker_copy *c;
        uint8_t sha[32];

        (void)m;
        crypto_sha256(bytes, sha);
        c = find_copy(w, sha);
        if (c && c->copy.path[0] && access(c->copy.path, R_OK) == 0)
                return arena_dupz(a, str_z(c->copy.path));
        return memory_copies_make(&w->memory, bytes, a, error);
}

static bool quarantined(const uint8_t sha[32])
{
        struct worker_copy *c = find_copy(self, sha);

        board_note_modules(self->board, self->index); /* before any code of a new module runs */
        return c && c->copy.quarantined;
}

static void take_copy(struct worker *w, const struct wire_copy *copy)
{
        struct worker_copy *c;

        if (!copy)
                return;
        if (copy->first) {
                LIST_EACH (n, &w->copies) {
                        list_remove(n);
                        free(CONTAINER_OF(n, struct worker_copy, link));
                }
        }
        c = calloc(1, sizeof(*c));
        CHECK(c);
        c->copy = *copy;
        c->copy.path[sizeof(c->copy.path) - 1] = 0;
        list_push(&w->copies, &c->link);
}

/* ------------------------------------------------------------------ generations */

static void count_gens(struct worker *w)
{
        int64_t count = 0;

        LIST_EACH (n, &w->gens)
                count++;
        metric_set(metric_series(w->house.control->metrics, METRIC_GENERATIONS_ALIVE, STR("")),
                   count);
}

static void add_gen(struct worker *w, struct gen *g)
{
        struct worker_gen *wg = calloc(1, sizeof(*wg));

        CHECK(wg);
        wg->gen = g;
        list_push(&w->gens, &wg->link);
        count_gens(w);
}

static void drop_gen(struct worker *w, struct gen *g)
{
        LIST_EACH (n, &w->gens) {
                struct worker_gen *wg = CONTAINER_OF(n, struct worker_gen, link);
                if (wg->gen != g)
                        continue;
                list_remove(&wg->link);
                free(wg);
        }
        gen_free(g);
        page_trim_heap(); /* its memory goes back to the system, not into holes that the next one
                           misses */
        memory_copies_sweep(&w->memory);
        board_note_modules(w->board, w->index);
        count_gens(w);
}

static void gen_ended(struct gen *g)
{
        struct worker *w = g->house->ctx;
        uint32_t number = g->number;

        drop_gen(w, g);
        log_debug("weir", "configuration %u has ended here", number);
        say_modules(w, WIRE_ENDED, number);
}

static bool prepare_on_loop(struct worker *w, struct loop *l, void *arg)
{
        (void)arg;
        return gen_prepare(w->preparing, l);
}

static bool abort_on_loop(struct worker *w, struct loop *l, void *arg)
{
        (void)arg;
        gen_abort(w->preparing, l);
        return true;
}

static void aborted(struct worker *w, bool ok, void *arg)
{
        struct report *rep = arg;

        (void)ok;
        drop_gen(w, w->preparing);
        w->preparing = NULL;
        if (rep) {
                say_failed(w, rep);
                buf_clear(&rep->out);
                free(rep);
        } else {
                entrance_undo(w);
                say_modules(w, WIRE_ENDED, w->preparing_number);
        }
}

static void prepared(struct worker *w, bool ok, void *arg)
{
        struct report *rep = arg;

        if (!ok) {
                buf_printf(&rep->out, "a function could not be set up on every loop\n");
                worker_fan(w, abort_on_loop, aborted, rep);
                return;
        }
        buf_clear(&rep->out);
        free(rep);
        say_modules(w, WIRE_READY, w->preparing_number);
}

static void prepare(struct worker *w, uint32_t number, int bundle_fd, bool canary)
{
        struct report *rep = calloc(1, sizeof(*rep));
        struct bundle *b = bundle_fd >= 0 ? bundle_map(bundle_fd) : NULL;

        CHECK(rep && b && !w->preparing);
        w->preparing_number = number;
        upstreams_trial(w->house.upstreams, canary);
        w->preparing = gen_build(&w->house, number, bundle_source(b), w->m->options->config,
                                 w->m->options->prefix, rep);
        upstreams_trial(w->house.upstreams, false);
        bundle_free(b);
        close(bundle_fd);
        if (!w->preparing) {
                say_failed(w, rep);
                buf_clear(&rep->out);
                free(rep);
                return;
        }
        board_note_modules(w->board, w->index);
        add_gen(w, w->preparing);
        worker_fan(w, prepare_on_loop, prepared, rep);
}

static void abort_prepared(struct worker *w, const uint32_t *number)
{
        if (!number || *number != w->preparing_number)
                return; /* somebody else's: this one has just been started */
        if (w->trial)
                worker_canary_end(w);
        else if (w->preparing)
                worker_fan(w, abort_on_loop, aborted, NULL);
        else
                entrance_undo(w);
}

/* ------------------------------------------------------------------ commits */

/*
 * A commit is three fans, because a loop hands what it accepts to any other, and whoever gets it
 * must have a configuration that knows the listener:
 *
 *   stop what leaves (all still have the old one) -> switch -> start what is new (all have the new)
 */
static bool start_on_loop(struct worker *w, struct loop *l, void *arg)
{
        (void)arg;
        entrance_start(w, l);
        return true;
}

static void committed(struct worker *w, bool ok, void *arg)
{
        (void)ok;
        (void)arg;
        w->preparing = NULL;
        w->draining = w->not_ready = false;
        deadline_clear(&w->drain_look);
        entrance_settle(w, false);
        export_news(w); /* before anyone may be told that this worker is there */
        say_modules(w, WIRE_COMMITTED, w->current->number);
}

static bool switch_on_loop(struct worker *w, struct loop *l, void *arg)
{
        (void)arg;
        gen_commit(w->preparing, l);
        if (w->draining)
                (void)downstream_drain(l, false);
        return true;
}

static void switched(struct worker *w, bool ok, void *arg)
{
        (void)ok;
        worker_fan(w, start_on_loop, committed, arg);
}

static bool stop_leaving_on_loop(struct worker *w, struct loop *l, void *arg)
{
        (void)arg;
        entrance_stop(w, l, false); /* what still waits there is the old configuration's */
        return true;
}

static void stopped_leaving(struct worker *w, bool ok, void *arg)
{
        struct metric_slot *slot = w->house.control->metrics;

        (void)ok, (void)arg;
        if (w->current) {
                staple_hide(&w->current->staples, slot);
                expiry_hide(&w->current->expiry, w->current->conf, slot);
        }
        /* The one before may end as soon as the last loop has switched. */
        w->current = w->preparing;
        expiry_show(&w->current->expiry, w->current->conf, slot);
        worker_fan(w, switch_on_loop, switched, arg);
}

static void commit(struct worker *w)
{
        if (!w->preparing)
                return;
        if (w->trial)
                gen_promote(w->preparing);
        w->trial = w->counting = false;
        listen_budget(w->preparing->conf->max_connections);
        worker_fan(w, stop_leaving_on_loop, stopped_leaving, NULL);
}

/* ------------------------------------------------------------------ drain and end */

static bool open_on_loop(struct worker *w, struct loop *l, void *arg)
{
        (void)w;
        (void)arg;
        return downstream_count(l) == 0 && flow_requests(l) == 0 && io_lingering(l) == 0;
}

static void look_again(struct deadline *d);

static void looked(struct worker *w, bool empty, void *arg)
{
        (void)arg;
        if (!w->draining)
                return;
        if (empty && !w->empty_said) {
                w->empty_said = true;
                worker_say(w, WIRE_EMPTY, 0, NULL, 0, -1);
        }
        if (!empty)
                deadline_set(w->house.control, &w->drain_look, DRAIN_LOOK, look_again);
}

static void look_again(struct deadline *d)
{
        struct worker *w = CONTAINER_OF(d, struct worker, drain_look);

        if (!event_pending(w->channel_event, EV_READ, NULL)) /* a fan is out: after it */
                deadline_set(w->house.control, d, DRAIN_LOOK, look_again);
        else
                worker_fan(w, open_on_loop, looked, NULL);
}

static bool drain_on_loop(struct worker *w, struct loop *l, void *arg)
{
        (void)arg;
        entrance_stop(w, l, true);
        (void)downstream_drain(l, true);
        upstreams_close_idle(w->house.upstreams, l);
        return true;
}

static void drained(struct worker *w, bool ok, void *arg)
{
        (void)ok;
        entrance_settle(w, true);
        looked(w, false, arg);
}

static void drain(struct worker *w)
{
        w->not_ready = w->draining = true;
        w->empty_said = false;
        worker_fan(w, drain_on_loop, drained, NULL);
}

static bool stop_on_loop(struct worker *w, struct loop *l, void *arg)
{
        (void)w;
        (void)arg;
        accesslog_flush(l);
        loop_stop(l);
        return true;
}

static void stopped(struct worker *w, bool ok, void *arg)
{
        (void)ok;
        (void)arg;
        for (unsigned i = 0; i < w->n_loops; i++)
                pthread_join(w->threads[i], NULL);
        accesslog_stop();
        _exit(0);
}

/* ------------------------------------------------------------------ hearing */

static void take_error_log(struct wire *msg)
{
        const uint32_t *level = wire_data(msg, sizeof(*level));
        int fd = wire_take(msg, 0);

        if (level && fd >= 0)
                log_to_fd(fd, (enum log_level) * level);
}

static bool cover_on_loop(struct worker *w, struct loop *l, void *arg)
{
        unsigned other = (unsigned)(uintptr_t)arg, place = entrance_place(w, other, l->index);

        if (w->absent[other])
                entrance_adopt(w, l, place, false);
        else
                entrance_return(w, l, place);
        return true;
}

static void covered(struct worker *w, bool ok, void *arg)
{
        (void)w;
        (void)ok;
        (void)arg;
}

static void take_cover(struct worker *w, const struct wire_cover *c)
{
        if (!c || c->worker >= w->n_workers || c->worker == w->index ||
            w->absent[c->worker] == (c->absent == 1))
                return;
        w->absent[c->worker] = c->absent == 1;
        worker_fan(w, cover_on_loop, covered, (void *)(uintptr_t)c->worker);
}

static void take_server(struct worker *w, const struct wire *msg)
{
        const struct wire_server *s = wire_data(msg, sizeof(*s));
        uint32_t ok = s && upstreams_admin(w->house.upstreams, str_z(s->upstream), str_z(s->server),
                                           str_z(s->state));

        worker_say(w, WIRE_ANSWER, msg->number, &ok, sizeof(ok), -1);
}

static void take_functions(struct worker *w, const struct wire *msg)
{
        const uint32_t *json = wire_data(msg, sizeof(*json));
        struct buf out = BUF_INIT;
        str text;
        int fd;

        functions_answer(w, json && *json == 1, &out);
        text = buf_pullup(&out, out.n);
        fd = memfd_make("weir-functions", &text, 1);
        worker_say(w, WIRE_WORDS, msg->number, NULL, 0, fd);
        if (fd >= 0)
                close(fd);
        buf_clear(&out);
}

static void hear(struct worker *w, struct wire *msg)
{
        const struct wire_listen *l = wire_data(msg, sizeof(*l));
        const uint32_t *number = wire_data(msg, sizeof(*number));
        int fd;

        switch ((enum wire_type)msg->type) {
        case WIRE_LISTEN:
                if (l)
                        entrance_add(w, l, msg);
                return;
        case WIRE_UNLISTEN:
                if (l)
                        entrance_mark_leaving(w, l->id);
                return;
        case WIRE_LOG:
                fd = wire_take(msg, 0);
                if (fd >= 0)
                        accesslog_set_fd(str_of(msg->data, msg->n), fd);
                return;
        case WIRE_ERROR_LOG:
                take_error_log(msg);
                return;
        case WIRE_COPY:
                take_copy(w, wire_data(msg, sizeof(struct wire_copy)));
                return;
        case WIRE_PREPARE:
                prepare(w, msg->number, wire_take(msg, 0), number && *number == 1);
                return;
        case WIRE_COMMIT:
                commit(w);
                return;
        case WIRE_ABORT:
                abort_prepared(w, number);
                return;
        case WIRE_CANARY:
                worker_canary_share(w, wire_data(msg, sizeof(struct wire_canary)));
                return;
        case WIRE_SERVING:
                w->serving = true;
                export_news(w);
                return;
        case WIRE_NOT_READY:
                w->not_ready = true;
                return;
        case WIRE_DRAIN:
                drain(w);
                return;
        case WIRE_STOP:
                worker_fan(w, stop_on_loop, stopped, NULL);
                return;
        case WIRE_COVER:
                take_cover(w, wire_data(msg, sizeof(struct wire_cover)));
                return;
        case WIRE_SERVER:
                take_server(w, msg);
                return;
        case WIRE_FUNCTIONS:
                take_functions(w, msg);
                return;
        default:
                log_error("weir", "the master says what no master says (%u)", msg->type);
        }
}

static void channel_readable(evutil_socket_t fd, short what, void *arg)
{
        struct worker *w = arg;
        static struct wire msg; /* control thread only, and it is large */

        (void)what;
        loop_woke(w->house.control);
        switch (wire_recv(fd, &msg)) {
        case WIRE_NONE:
                return;
        case WIRE_END: /* without a master nobody would replace or stop us */
                _exit(1);
        case WIRE_GOT:
                break;
        }
        hear(w, &msg);
        wire_close(&msg);
}

/* ------------------------------------------------------------------ life */

static void *loop_thread(void *arg)
{
        struct loop *l = arg;

        crumb_use(board_crumb(self->board, self->index, l->index));
        crumb_thread_stack();
        loop_run(l);
        return NULL;
}

static void make_loops(struct worker *w)
{
        unsigned base = w->index * (w->n_loops + 1);

        for (unsigned i = 0; i <= w->n_loops; i++)
                metric_slot_begin(metric_slot(w->m->metrics, base + i));
        w->house.control = loop_new(~0U, metric_slot(w->m->metrics, base));
        w->loops = calloc(w->n_loops, sizeof(struct loop *));
        w->threads = calloc(w->n_loops, sizeof(*w->threads));
        w->adoptions = calloc(w->n_loops, sizeof(*w->adoptions));
        w->absent = calloc(w->n_workers, sizeof(*w->absent));
        CHECK(w->loops && w->threads && w->adoptions && w->absent);
        for (unsigned i = 0; i < w->n_loops; i++)
                list_init(&w->adoptions[i]);
        for (unsigned i = 0; i < w->n_loops; i++)
                w->loops[i] = loop_new(i, metric_slot(w->m->metrics, base + 1 + i));
}

static void make_house(struct worker *w)
{
        tls_tickets_use(w->m->tickets);
        tls_staples_use(w->m->staples);
        w->ticket_age = metric_series(w->house.control->metrics, METRIC_TICKET_AGE, STR(""));
        tls_replay_use(w->m->replay);
        w->house.loops = w->loops;
        w->house.n_loops = w->n_loops;
        w->house.store = w->m->store;
        w->house.quarantined = quarantined;
        w->house.gen_ended = gen_ended;
        w->house.module_path = module_path;
        w->house.ctx = w;
        w->house.upstreams =
                upstreams_new(w->house.control, w->loops, w->n_loops, w->m->inflight, w->index);
}

static void drop_rights(const struct master *m)
{
        struct proc_user user = {m->first.has_user, m->first.uid, m->first.gid};

        if (proc_drop(&user))
                return;
        log_error("weir", "user: the rights cannot be given up: %s", strerror(errno));
        _exit(1);
}

void worker_main(const struct worker_gift *g)
{
        struct worker *w = calloc(1, sizeof(*w));
        int keep[] = {g->channel, g->crash_fd, g->m->logs.kept_fd};

        CHECK(w);
        self = w;
        proc_child_signals();
        proc_close_others(keep, COUNT(keep));
        drop_rights(g->m);
        w->m = g->m;
        w->index = g->index;
        w->channel = g->channel;
        w->board = g->m->board;
        w->n_loops = g->m->loops;
        w->n_workers = g->m->n_children;
        list_init(&w->entrances);
        list_init(&w->gens);
        list_init(&w->copies);
        memory_copies_init(&w->memory);
        crumb_use(board_crumb(w->board, w->index, BOARD_CONTROL));
        crumb_catch_faults(g->crash_fd);
        crumb_catch_dump();
        make_loops(w);
        make_house(w);
        accesslog_start();
        w->export = export_new(w);
        w->watchdog = watchdog_new(w);
        w->channel_event = event_new(w->house.control->base, w->channel, EV_READ | EV_PERSIST,
                                     channel_readable, w);
        CHECK(w->channel_event && event_add(w->channel_event, NULL) == 0);
        for (unsigned i = 0; i < w->n_loops; i++)
                CHECK(pthread_create(&w->threads[i], NULL, loop_thread, w->loops[i]) == 0);
        loop_run(w->house.control);
        _exit(0);
}
