/*
 * The host table's calls about messages, variables, the store and values; task.h has those that
 * wait, instance.h those of create.
 */
#ifndef PROXY_API_H
#define PROXY_API_H

#include "proxy/task.h"

/* The response is there (or was replaced): what functions did to it before takes effect. */
void api_apply_early(struct weir_task *t);

/* Room for n more bytes under memory=. */
bool api_room(const struct weir_task *t, size_t n);
/* The same for a further operation, whatever those under way hold: its completion is told of it. */
bool api_room_to_ask(const struct weir_task *t, size_t n);
/* Accounts for what a call has taken since `before` (arena_used). */
static inline void api_took(struct weir_task *t, size_t before)
{
        if (t->used != NULL)
                *t->used += arena_used(t->arena) - before;
}
/* The same; false: that was too much. */
static inline bool api_took_ok(struct weir_task *t, size_t before)
{
        if (LIKELY(arena_used(t->arena) == before))
                return true;
        api_took(t, before);
        return api_room(t, 0);
}

static inline str api_str(weir_str s)
{
        return str_of(s.p, s.n);
}
static inline weir_str api_weir(str s)
{
        return (weir_str){s.p, s.n};
}

/* ---- What calls of a request's hook ask first. */
static inline bool api_is_here(const struct weir_task *t)
{
        return LIKELY(t != NULL && t == task_current && t->kind == TASK_REQUEST);
}
static inline bool api_in_request(const struct weir_task *t, const char *call)
{
        return api_is_here(t) || task_misused(t, call);
}
/* A body hook whose message's head has gone, or may have (api_field.c). */
bool api_streams(const struct weir_task *t);

/* Rows of the table that are not in api.c: of fields (api_field.c), and the others. */
int32_t api_header_get(weir_req *t, int32_t where, weir_str name, weir_str *value);
int32_t api_header_at(weir_req *t, int32_t where, size_t i, weir_kv *out);
weir_err api_header_set(weir_req *t, int32_t where, weir_str name, weir_str value);
weir_err api_header_add(weir_req *t, int32_t where, weir_str name, weir_str value);
int32_t api_header_del(weir_req *t, int32_t where, weir_str name);
int32_t api_var_get(weir_req *t, weir_str name, weir_str *value);
weir_err api_var_set(weir_req *t, weir_str name, weir_str value);
weir_err api_var_del(weir_req *t, weir_str name);
weir_err api_upstream_set(weir_req *t, const weir_upstream *u);
weir_rc api_respond(weir_req *t, int32_t status, weir_str body);
weir_str api_expand(weir_task *t, const weir_template *tpl);
int32_t api_regex_match(weir_task *t, const weir_regex *re, weir_str subject);
weir_str api_regex_replace(weir_task *t, const weir_regex *re, weir_str subject,
                           const weir_template *with);

/* ---- api_http.c: between the header's words and subrequest's. */
struct subrequest_ask;
struct subrequest_answer;
/* *whole is req as this version knows it, for ask.  false: it cannot be asked at all, and the
 * module was told why. */
MUST_CHECK bool api_http_ask(struct weir_task *t, const weir_upstream *u, const weir_http_req *req,
                             weir_http_req *whole, struct subrequest_ask *ask);
/* In the task's arena; never NULL. */
const weir_http_res *api_http_res(struct weir_task *t, const struct subrequest_answer *a);

#endif
