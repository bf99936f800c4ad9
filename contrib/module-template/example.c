/*
 * example: tells upstreams for whom a request is, and refuses hosts that are nobody's.
 *
 *     function example { host a.test alpha; host b.test beta; field X-Tenant; }
 *
 * A module describes a struct; weir reads the configuration into it, checks it, and reports
 * mistakes with line and column. weir-module(3) has all of it, and a cookbook.
 */
#include <weir/module.h>

struct host {
        weir_str name, tenant;
};

struct conf {
        weir_list hosts; /* of struct host */
        weir_str field;
        weir_str name; /* "example_tenant": the variable $example_tenant */
        weir_metric *refused;
};

static const weir_arg host[] = {
        WEIR_ARG(struct host, name, STR, WEIR_BARE | WEIR_REQUIRED, NULL,
                 "Host that the client asks for."),
        WEIR_ARG(struct host, tenant, STR, WEIR_BARE | WEIR_REQUIRED, NULL, "Whose it is."),
};

static const weir_arg args[] = {
        WEIR_LINES("host", struct conf, hosts, WEIR_REQUIRED, struct host, host, 2,
                   "Names a tenant's host."),
        WEIR_ARG(struct conf, field, FIELD, 0, "X-Tenant",
                 "Field that carries the tenant to upstreams."),
        WEIR_ARG_AS("variable", struct conf, name, VAR, 0, "tenant",
                    "Variable that receives the tenant."),
};

/* Once for each use, when a configuration is read; what is wrong with it is said here. */
static weir_err create(weir_conf *c, void *inst)
{
        struct conf *conf = inst;

        WEIR_EACH (struct host, h, conf->hosts) {
                if (h->tenant.n > 64)
                        return weir->conf_error(c, h->tenant.p,
                                                "a tenant's name has at most 64 characters");
        }
        conf->refused = weir->conf_metric(c, WEIR_COUNTER, "refused_total",
                                          "Requests for hosts of nobody.", NULL, 0);
        return WEIR_OK;
}

/* For each request, before it goes to an upstream. */
static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *conf = inst;
        weir_str asked;

        (void)ctx;
        if (weir->var_get(r, WEIR_STR("host"), &asked)) {
                WEIR_EACH (struct host, h, conf->hosts) {
                        if (!weir_eq_icase(h->name, asked))
                                continue;
                        if (weir->header_set(r, WEIR_REQUEST, conf->field, h->tenant) ||
                            weir->var_set(r, conf->name, h->tenant))
                                return WEIR_ERROR;
                        return WEIR_CONTINUE;
                }
        }
        weir->metric_add(conf->refused, 1);
        return weir->respond(r, 421, WEIR_STR("nobody lives here\n"));
}

/* Run at every load: a module that fails one of its own cases never comes into service. There are
 * more in example.cases, for `make test`. */
static const weir_case cases[] = {
        {.name = "known",
         .config = "{ host a.test alpha; }",
         .request = "GET / HTTP/1.1\nhost: a.test\n\n",
         .expect = "continue\nreq x-tenant: alpha"},
};

WEIR_MODULE(.name = "example", .version = "1.0", WEIR_ARGS(struct conf, args), WEIR_CASES(cases),
            .create = create, .on_request = request);
