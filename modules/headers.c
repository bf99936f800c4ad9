/*
 * headers: sets, adds, removes and rewrites fields of requests and responses.
 *
 *     function headers {
 *         set response Strict-Transport-Security "max-age=63072000";
 *         add request X-Tenant $arg_tenant;
 *         remove response Server;
 *         replace response Location '^http://[^/]+/(.*)$' https://$host/$1;
 *     }
 *
 * The lines of one message take effect in the order written: `remove`, then `add`, means that.
 */
#include <weir/module.h>

struct op {
        int32_t verb, where;
        weir_str name;
        const weir_regex *pattern; /* replace */
        const weir_template *value;
};
struct conf {
        weir_list ops;
        struct ops {
                const struct op *v;
                size_t n;
        } of[2]; /* those of one message, by WEIR_REQUEST and WEIR_RESPONSE; made by create */
};
enum { SET, ADD, REMOVE, REPLACE };

#define VERB                                                                                       \
        WEIR_ARG(struct op, verb, ENUM, WEIR_VERB, NULL, "", .choices = "set add remove replace")
#define WHERE                                                                                      \
        WEIR_ARG(struct op, where, ENUM, WEIR_BARE | WEIR_REQUIRED, NULL, "Of which message.",     \
                 .choices = "request response")
#define NAME WEIR_ARG(struct op, name, FIELD, WEIR_BARE | WEIR_REQUIRED, NULL, "Field name.")

static const weir_arg plain[] = {
        VERB,
        WHERE,
        NAME,
        WEIR_ARG(struct op, value, TEMPLATE, WEIR_BARE | WEIR_REQUIRED, NULL, "Its value."),
};
static const weir_arg replace[] = {
        VERB,
        WHERE,
        NAME,
        WEIR_ARG(struct op, pattern, REGEX, WEIR_BARE | WEIR_REQUIRED, NULL,
                 "What is replaced in the field's values."),
        WEIR_ARG(struct op, value, TEMPLATE, WEIR_BARE | WEIR_REQUIRED | WEIR_CAPTURES, NULL,
                 "What stands in its place; $1 and $NAME are what the pattern captured."),
};
static const weir_arg args[] = {
        WEIR_LINES("set", struct conf, ops, 0, struct op, plain, 4,
                   "Sets a field, in place of all of its name."),
        WEIR_LINES("add", struct conf, ops, 0, struct op, plain, 4,
                   "Adds a field to those of its name."),
        WEIR_LINES("remove", struct conf, ops, 0, struct op, plain, 3,
                   "Removes all fields of a name."),
        WEIR_LINES("replace", struct conf, ops, 0, struct op, replace, 5,
                   "Rewrites each value of a field by a regular expression."),
};

/* Each hook has the lines of its own message only. */
static weir_err create(weir_conf *t, void *inst)
{
        struct conf *c = inst;

        for (int32_t where = WEIR_REQUEST; where <= WEIR_RESPONSE; where++) {
                struct ops *of = &c->of[where];
                struct op *v = weir->alloc(t, c->ops.n * sizeof(*v));
                if (v == NULL)
                        return WEIR_E_NOMEM;
                WEIR_EACH (struct op, o, c->ops)
                        if (o->where == where)
                                v[of->n++] = *o;
                of->v = v;
        }
        return WEIR_OK;
}

/* Several fields of one name (Set-Cookie) stay several: they are taken off and put back in their
 * order.  Not in line: what is done more often need not save registers for it. */
static __attribute__((noinline)) weir_rc rewrite(weir_req *r, const struct op *o)
{
        weir_str first;
        int32_t n = weir->header_get(r, o->where, o->name, &first), k = 0;
        weir_str *values;
        weir_kv kv;

        if (n <= 0)
                return WEIR_CONTINUE;
        values = weir->alloc(r, (size_t)n * sizeof(*values));
        if (values == NULL)
                return WEIR_ERROR;
        for (size_t i = 0; k < n && weir->header_at(r, o->where, i, &kv); i++)
                if (weir_eq_icase(kv.name, o->name))
                        values[k++] = weir->regex_replace(r, o->pattern, kv.value, o->value);
        for (int32_t i = 0; i < k; i++)
                if ((i == 0 ? weir->header_set : weir->header_add)(r, o->where, o->name, values[i]))
                        return WEIR_ERROR;
        return WEIR_CONTINUE;
}

static inline weir_rc apply(weir_req *r, const struct ops *ops)
{
        const struct op *o = ops->v, *end = o + ops->n;
        weir_str value;
        int32_t rc;

        for (; o != end; o++) {
                if (o->verb == REMOVE) {
                        rc = weir->header_del(r, o->where, o->name);
                } else if (o->verb == REPLACE) {
                        rc = rewrite(r, o);
                } else {
                        value = weir->expand(r, o->value);
                        rc = o->verb == SET ? weir->header_set(r, o->where, o->name, value)
                                            : weir->header_add(r, o->where, o->name, value);
                }
                if (rc < 0)
                        return WEIR_ERROR;
        }
        return WEIR_CONTINUE;
}

static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        (void)ctx;
        return apply(r, &((const struct conf *)inst)->of[WEIR_REQUEST]);
}

static weir_rc response(weir_req *r, const void *inst, void *ctx)
{
        (void)ctx;
        return apply(r, &((const struct conf *)inst)->of[WEIR_RESPONSE]);
}

#define GET "GET / HTTP/1.1\nhost: a\n"
static const weir_case cases[] = {
        {.name = "order",
         .config = "{ remove request x; add request x 1; add request x 2; }",
         .request = GET "x: 0\n\n",
         .expect = "continue\nreq x: 1\nreq x: 2"},
        {.name = "set takes the place of all",
         .config = "{ set request x $method; }",
         .request = GET "x: 0\nX: 1\n\n",
         .expect = "continue\nreq x: GET"},
        {.name = "replace",
         .config = "{ replace response Location '^http://[^/]+/(.*)$' https://$host/$1; }",
         .request = GET "\n",
         .upstream = "HTTP/1.1 302 Found\nlocation: http://10.0.0.1:8080/x?y\n\n",
         .expect = "continue\nres location: https://a/x?y"},
        {.name = "replace keeps the number of fields",
         .config = "{ replace response Set-Cookie '; *path=/app' '; Path=/'; }",
         .request = GET "\n",
         .upstream = "HTTP/1.1 200 OK\nset-cookie: a=1; path=/app\nset-cookie: b=2\n\n",
         .expect = "continue\nres set-cookie: a=1; Path=/\nres set-cookie: b=2"},
        {.name = "what does not match stays",
         .config = "{ replace request x '^b' c; remove response server; }",
         .request = GET "x: abc\n\n",
         .upstream = "HTTP/1.1 200 OK\nserver: old\n\n",
         .expect = "continue\nreq x: abc\nres -server"},
};

WEIR_MODULE(.name = "headers", .version = "1.0", WEIR_ARGS(struct conf, args), WEIR_CASES(cases),
            .create = create, .on_request = request, .on_response = response);
