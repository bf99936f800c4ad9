/*
 * "lit$var${capture}" compiled once, expanded per request.
 *
 * Which names exist is checked when the file is read, with the captures of the route's own regex.
 */
#ifndef CONF_TEMPLATE_H
#define CONF_TEMPLATE_H

#include "base/arena.h"
#include "base/regex.h"

enum variable {
#define VARIABLE(id, name, when, help) VAR_##id,
#include "conf/variable.tbl"
#undef VARIABLE
        VAR_ARG,    /* $arg_NAME: name without the prefix */
        VAR_HEADER, /* $header_NAME: '_' in it means '-' */
        VAR_RESPONSE_HEADER,
        VAR_COOKIE,
        VAR_PROXY_TLV, /* $proxy_protocol_tlv_0xNN: group is the type */
        VAR_CAPTURE,   /* $1, $NAME: group */
        VAR_MODULE     /* $jwt_user: set by a function; name is the whole of it */
};

struct template_op {
        bool literal;
        uint8_t var;    /* enum variable */
        uint16_t group; /* VAR_CAPTURE, VAR_PROXY_TLV */
        str text; /* literal, or the name of ARG HEADER RESPONSE_HEADER COOKIE MODULE (headers: with
                     '-') */
};

/* Immutable; lives in the configuration's arena. */
struct template
{
        str source; /* as written, for dumps */
        uint32_t n;
        bool constant; /* no variable: op[0] is all of it, also when n is 0 */
        struct template_op op[];
};

/* What names are known at this place. */
struct template_scope {
        const struct regex *route_regex; /* captures of the route, or NULL */
        bool response;                   /* response-side variables allowed */
        bool (*module_variable)(
                void *ctx,
                str name); /* is $NAME set by a function of this configuration? NULL: none is */
        void *ctx;
};

enum template_name {
        TEMPLATE_NAME_OK,
        TEMPLATE_NAME_UNKNOWN,
        TEMPLATE_NAME_GROUP,   /* $1..$9 without such a group */
        TEMPLATE_NAME_RESPONSE /* known on the response side only */
};

/* What a name (without `$`) stands for in a scope; op points into name, or is in a. */
enum template_name template_name(struct arena *a, str name, const struct template_scope *scope,
                                 struct template_op *op);
/* Whether name is, or begins like, a variable of weir's own: no capture or module may have it. */
bool template_reserved(str name);
/* "0xNN" of $proxy_protocol_tlv_0xNN. */
bool template_tlv_type(str text, uint16_t *type);

/* NULL: *error says what is wrong, *at is the offset in text. */
MUST_CHECK struct template *template_compile(struct arena *a, str text,
                                             const struct template_scope *scope, const char **error,
                                             size_t *at);

/* The text of a constant one, which is nowhere else. */
static inline str template_constant(const struct template *t)
{
        return t->op[0].text;
}

/* The value of op in this request; absent counts as empty. */
typedef str template_lookup(void *ctx, const struct template_op *op);
/* Constant and single-variable templates are not copied.  Absent when the arena is used up. */
str template_expand(const struct template *t, struct arena *a, template_lookup *lookup, void *ctx);

#endif
