/*
 * From the tree to the model: what the files of compile share.
 */
#ifndef CONF_COMPILE_H
#define CONF_COMPILE_H

#include "base/check.h"
#include "conf/conf.h"
#include "conf/directive.h"

#define ARGS_MAX 16 /* keys of one directive */

/* One directive's words, sorted by the table: plain ones in order, values by key. */
struct args {
        const struct directive *d;
        const struct tree *node;
        struct word **word; /* plain words behind the name */
        size_t n;
        struct {
                const struct directive_key *key;
                struct word value, *whole;
        } keyed[ARGS_MAX];
        size_t n_keyed;
};

typedef VEC(struct function_conf *) function_vec;

/* The block that is being read. */
struct scope {
        unsigned context;
        void *object;         /* where VALUE rows go */
        struct settings *own; /* where settings go; NULL: none here */
        const struct template_scope *names;
        function_vec *functions; /* those of a host or route */
        const struct host_conf *host;
        const struct route_conf *route; /* NULL in the host's own part */
};

/* A name that is looked up when everything has been read. */
struct reference {
        str name;
        struct conf_pos pos;
        enum { REF_PROXY, REF_LISTEN_HOST } kind;
        size_t host, route, target; /* REF_PROXY */
};

/* Access logs are shared by (path, format), which are known only at the end. */
struct log_use {
        struct access_log_conf *log; /* the settings point to it until linked */
        struct conf_pos pos;         /* of its format */
};

struct format_conf {
        str name;
        const struct template *template;
};

/* A variable that only a module can set: checked when modules are there. */
struct module_variable {
        str name;
        struct conf_pos pos;
};

/* What linking needs and nobody else: lives in the configuration's arena. */
struct conf_link {
        const struct tree *root;
        VEC(struct module_variable) variables;
        VEC(struct tree *) named;  /* `limit NAME { }`: whose they are, modules say */
        const struct conf_pos *at; /* of the template that is being compiled */
};

/* Reading one configuration. */
struct compile {
        struct conf *conf;
        struct arena *a;
        struct source *src;
        struct report *rep;
        VEC(struct reference) refs;
        VEC(struct log_use) logs;
        VEC(struct format_conf) formats;
        VEC(struct listen_conf) listens;
        VEC(struct host_conf) hosts;
        VEC(struct upstream_conf) upstreams;
        VEC(struct redis_store_conf) redises;
        VEC(struct module_conf) modules;
        VEC(struct when) whens; /* of the route being read, and its proxy lines */
        VEC(struct proxy_target) targets;
        VEC(struct route_conf) routes;          /* of the host being read */
        struct map *names;                      /* "kind name" -> conf_pos of its first use */
        const struct template_scope *names_top; /* without a route, request side */
        const struct template_scope *names_log; /* and response side */
};

/* Reads the block's directives by the table. */
void compile_block(struct compile *c, struct tree *const *child, size_t n, struct scope *s);
/* Values of the keys with a place into object (settings into own), defaults of the others. */
void compile_keys(struct compile *c, const struct scope *s, const struct args *a, void *object);
/* The defaults of a context's VALUE rows into its struct. */
void compile_defaults(struct compile *c, unsigned context, void *object);
/* The same for the keys of a directive that need not be written. */
void compile_key_defaults(struct compile *c, unsigned context, const char *directive, void *object);
/* The value of a key, or NULL. */
/* A file of ticket keys, which are the same for all listeners. */
bool compile_ticket_file(struct compile *c, const struct word *w);
const struct word *compile_key(const struct args *a, const char *name);
/* Says that a word has no place in the directive: or that a `;` is missing before it. */
void compile_surplus(struct compile *c, unsigned context, const struct args *a,
                     const struct word *w);
/* Names of the RETRY_* bits, lowest first. */
#define COMPILE_CAUSES 13
extern const char *const compile_causes[COMPILE_CAUSES];
/* One word by a row into base; false when it was a mistake. */
bool compile_word(struct compile *c, const struct value_row *row, const char *name,
                  const struct word *w, void *base);

const struct template *compile_template(struct compile *c, const struct word *w,
                                        const struct template_scope *names);
/* what: put before the message, such as "key: ". */
const struct template *compile_template_as(struct conf *c, struct report *rep, const struct word *w,
                                           const struct template_scope *names, const char *what);
/* Freed with the arena. */
const struct regex *compile_regex(struct arena *a, struct report *rep, const struct word *w,
                                  bool icase, const char *what);
bool compile_file(struct compile *c, const struct word *w, struct file_text *out);
/* A number of three digits between min and max. */
bool compile_status(struct compile *c, const struct word *w, int min, int max, int *out);
/* ADDR:PORT, NAME:PORT or unix:PATH of something to connect to; port: when none is written. */
bool compile_address(struct compile *c, const struct word *w, uint16_t port, struct addr *addr,
                     str *host, uint16_t *out_port);
/* The first user of a name, when it is not this one (then the mistake is reported). */
bool compile_unique(struct compile *c, const char *kind, str name, const struct conf_pos *at);
bool compile_block_name(struct compile *c, const struct word *w, const char *kind);
str compile_lower(struct arena *a, str s);
bool compile_is(const struct word *w, const char *text);
/* A scope whose module variables are checked when functions are linked. */
const struct template_scope *compile_names(struct conf *c, const struct regex *re, bool response);

void *compile_dup(struct arena *a, const void *v, size_t n, size_t size);
#define COMPILE_TAKE(a, vec) compile_dup((a), (vec).v, (vec).n, sizeof(*(vec).v))

/* Weir's own parameters among the words from the first-th on and in the block of f->tree. */
void compile_function_parameters(struct compile *c, struct function_conf *f, size_t first);
bool compile_is_function_parameter(str name);
str compile_function_label(struct arena *a, const struct function_conf *f);
/* Bit of a parameter in function_conf.written: their first letters differ. */
#define FUNCTION_WRITTEN(name) (1u << ((name).p[0] - 'a'))
#define FUNCTION_TIMEOUT       (5 * SEC)
#define FUNCTION_BUDGET        (10 * MSEC)
#define FUNCTION_LOG_LINES     10

/* CIDRs of a when line. */
bool compile_client_nets(struct compile *c, struct word *const *word, size_t n, struct when *out);
/* Sets v6only where [::]:PORT meets an IPv4 listener of that port, once all are known. */
void compile_listens_done(struct compile *c);

/* link.c: names between blocks, effective settings, functions of routes. */
void link_conf(struct compile *c);

#endif
