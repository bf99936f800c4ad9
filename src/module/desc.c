/*
 * Checks a module's descriptor and its argument tables.
 *
 * The difficulty: it may have been built with another minor of the header, so every struct is read
 * with the size that its writer knew, and copied into one of ours.  The numbers in it are a
 * programmer's, not an attacker's: what is wrong is named.
 */
#include "module/desc.h"

#include "base/map.h"
#include "module/module.h"

#include <stdarg.h>

#define ARGS_MAX      256
#define CASES_MAX     1000
#define LINE_DEPTH    4
#define INST_SIZE_MAX MIB
#define CTX_SIZE_MAX  (64 * KIB)
#define LOOP_SIZE_MAX (64 * MIB)
#define STRUCT_MAX    4096 /* of any struct that crosses */

/* What the first released minor had: no less can come. */
#define MODULE_1_0 (offsetof(weir_module, on_response_body) + sizeof(void *))
#define ARG_1_0    (offsetof(weir_arg, line_size) + sizeof(size_t))
#define CASE_1_0   (offsetof(weir_case, expect) + sizeof(char *))

struct adopt {
        struct arena *a;
        str *error;
        const weir_module *theirs;
        uint32_t arg_size;
};

static PRINTF_LIKE(2, 3) bool refuse(struct adopt *d, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        *d->error = arena_vprintf(d->a, fmt, ap);
        va_end(ap);
        return false;
}

static bool name_ok(const char *name)
{
        size_t n = 0;

        if (name == NULL || name[0] < 'a' || name[0] > 'z')
                return false;
        for (; name[n] != '\0'; n++)
                if (n == MODULE_NAME_MAX || !((name[n] >= 'a' && name[n] <= 'z') ||
                                              (name[n] >= '0' && name[n] <= '9') || name[n] == '_'))
                        return false;
        return true;
}

size_t desc_value_size(uint32_t type)
{
        switch (type) {
        case WEIR_T_STR:
        case WEIR_T_FIELD:
        case WEIR_T_VAR:
                return sizeof(weir_str);
        case WEIR_T_TEXT:
                return sizeof(weir_text);
        case WEIR_T_ENUM:
        case WEIR_T_BOOL:
                return sizeof(int32_t);
        case WEIR_T_INT:
        case WEIR_T_NUMBER:
        case WEIR_T_TIME:
        case WEIR_T_SIZE:
                return sizeof(int64_t);
        case WEIR_T_RATE:
                return sizeof(weir_rate);
        case WEIR_T_LITERAL:
                return 0;
        default: /* handles */
                return sizeof(void *);
        }
}

/* Size of the field of an argument; its alignment is the same up to 8. */
static size_t field_size(const weir_arg *arg)
{
        return arg->flags & WEIR_MANY ? sizeof(weir_list) : desc_value_size(arg->type);
}

static bool reserved(const char *name)
{
        static const char *const ours[] = {"name", "on_error", "timeout", "budget", "memory"};

        for (size_t i = 0; i < COUNT(ours); i++)
                if (strcmp(name, ours[i]) == 0)
                        return true;
        return false;
}

static bool check_type(struct adopt *d, const weir_arg *arg, bool in_line, bool after_regex)
{
        if (arg->type < WEIR_T_STR || arg->type > WEIR_T_REGEX)
                return refuse(d, "argument %s is of a type that this weir does not know",
                              arg->name);
        if (arg->type == WEIR_T_ENUM && (arg->choices == NULL || arg->choices[0] == '\0'))
                return refuse(d, "argument %s is an ENUM without choices", arg->name);
        if ((arg->flags & WEIR_VERB) && (!in_line || arg->type != WEIR_T_ENUM))
                return refuse(d, "argument %s is a VERB, which must be an ENUM of a line",
                              arg->name);
        if (arg->type == WEIR_T_LINE &&
            (!(arg->flags & WEIR_MANY) || arg->line == NULL || arg->n_line == 0 ||
             arg->n_line > ARGS_MAX || arg->line_size == 0 || arg->line_size > INST_SIZE_MAX))
                return refuse(d, "argument %s is a LINE without a table (use WEIR_LINES)",
                              arg->name);
        if ((arg->flags & WEIR_CAPTURES) && (arg->type != WEIR_T_TEMPLATE || !after_regex))
                return refuse(d, "argument %s has CAPTURES but is not a TEMPLATE after a REGEX",
                              arg->name);
        return true;
}

static bool check_arg(struct adopt *d, const weir_arg *arg, size_t size, bool in_line,
                      bool after_regex)
{
        size_t field;

        if (!name_ok(arg->name))
                return refuse(d, "an argument has no valid name");
        if (!in_line && reserved(arg->name))
                return refuse(d, "argument %s has a name that every function has already",
                              arg->name);
        if (!check_type(d, arg, in_line, after_regex))
                return false;
        field = field_size(arg);
        if (field > size || arg->offset > size - field ||
            (field != 0 && arg->offset % MIN(field, sizeof(void *)) != 0))
                return refuse(d, "argument %s lies outside of its struct", arg->name);
        if (arg->min > arg->max)
                return refuse(d, "argument %s has min above max", arg->name);
        return true;
}

static weir_arg *adopt_args(struct adopt *d, const void *theirs, size_t n, size_t size, int depth);

static bool adopt_one(struct adopt *d, weir_arg *args, size_t i, size_t size, int depth)
{
        weir_arg *arg = &args[i];
        bool after_regex = false;

        for (size_t k = 0; k < i; k++) {
                after_regex |= args[k].type == WEIR_T_REGEX;
                if (arg->name != NULL && strcmp(args[k].name, arg->name) == 0 &&
                    arg->type != WEIR_T_LITERAL)
                        return refuse(d, "argument %s is there twice", arg->name);
                if ((arg->flags & WEIR_BARE) && (args[k].flags & WEIR_BARE) &&
                    (args[k].flags & WEIR_MANY))
                        return refuse(
                                d, "argument %s is bare after a bare list, which takes all words",
                                arg->name);
        }
        if (!check_arg(d, arg, size, depth > 0, after_regex))
                return false;
        if (depth == 0 && d->theirs->named != NULL && (arg->flags & WEIR_BARE))
                return refuse(d,
                              "argument %s is bare, which a module with named blocks cannot have",
                              arg->name);
        if (arg->type != WEIR_T_LINE)
                return true;
        if (depth == LINE_DEPTH)
                return refuse(d, "argument %s: lines within lines are nested too deep", arg->name);
        arg->line = adopt_args(d, arg->line, arg->n_line, arg->line_size, depth + 1);
        return arg->line != NULL;
}

static weir_arg *adopt_args(struct adopt *d, const void *theirs, size_t n, size_t size, int depth)
{
        weir_arg *args = ARENA_ARRAY(d->a, weir_arg, n + 1);

        for (size_t i = 0; i < n; i++) {
                memcpy(&args[i], (const char *)theirs + i * d->arg_size,
                       MIN(d->arg_size, sizeof(weir_arg)));
                if (!adopt_one(d, args, i, size, depth))
                        return NULL;
        }
        return args;
}

static bool size_ok(uint32_t size, size_t least)
{
        return size >= least && size <= STRUCT_MAX && size % sizeof(void *) == 0;
}

static bool check_head(struct adopt *d, const weir_host *host)
{
        const weir_module *m = d->theirs;

        if (m->magic != WEIR_ABI_MAGIC)
                return refuse(d, "its entry function returned no module (use WEIR_MODULE)");
        if (m->abi_major != WEIR_ABI_MAJOR)
                return refuse(d, "was built for ABI %u.%u, this weir has %u.%u", m->abi_major,
                              m->abi_minor, WEIR_ABI_MAJOR, WEIR_ABI_MINOR);
        if (!size_ok(m->size, MODULE_1_0) || !size_ok(m->arg_size, ARG_1_0) ||
            !size_ok(m->case_size, CASE_1_0))
                return refuse(
                        d,
                        "has structs of impossible sizes: it was not built with <weir/module.h>");
        if (m->host_size_min > host->size)
                return refuse(d, "needs ABI %u.%u, this weir has %u.%u", m->abi_major, m->abi_minor,
                              WEIR_ABI_MAJOR, WEIR_ABI_MINOR);
        return true;
}

static bool check_body(struct adopt *d, const weir_module *m, str name)
{
        if (!name_ok(m->name))
                return refuse(d, "has no valid name");
        if (name.p != NULL && !str_eq(str_z(m->name), name))
                return refuse(d, "calls itself \"%s\"", m->name);
        if (m->version == NULL)
                return refuse(d, "has no version");
        if (m->flags & ~(uint64_t)(WEIR_ANSWERS | WEIR_PINNED))
                return refuse(d, "has flags that this weir does not know");
        if (m->n_args > ARGS_MAX || (m->n_args != 0 && m->args == NULL) || m->n_cases > CASES_MAX ||
            (m->n_cases != 0 && m->cases == NULL))
                return refuse(d, "has a malformed table of arguments or cases");
        if (m->inst_size > INST_SIZE_MAX || m->ctx_size > CTX_SIZE_MAX ||
            m->loop_size > LOOP_SIZE_MAX)
                return refuse(d, "asks for too much memory for an instance, a request or a loop");
        if ((m->on_request_body != NULL && m->on_request == NULL) ||
            (m->on_response_body != NULL && m->on_response == NULL))
                return refuse(d, "has a hook for a body but none for its head, where body_mode() "
                                 "must be called");
        if (m->named != NULL && !name_ok(m->named))
                return refuse(d, "has no valid name for its named blocks");
        return true;
}

static const weir_case *adopt_cases(struct adopt *d, const weir_module *m)
{
        weir_case *cases = ARENA_ARRAY(d->a, weir_case, m->n_cases + 1);

        for (size_t i = 0; i < m->n_cases; i++)
                memcpy(&cases[i], (const char *)m->cases + i * m->case_size,
                       MIN(m->case_size, sizeof(weir_case)));
        return cases;
}

const weir_module *desc_adopt(const weir_module *theirs, str name, const weir_host *host,
                              struct arena *a, str *error)
{
        struct adopt d = {.a = a, .error = error, .theirs = theirs};
        weir_module *m;

        if (theirs == NULL) {
                refuse(&d, "its entry function returned no module (use WEIR_MODULE)");
                return NULL;
        }
        if (!check_head(&d, host))
                return NULL;
        d.arg_size = theirs->arg_size;
        m = ARENA_NEW(a, weir_module);
        memcpy(m, theirs, MIN(theirs->size, sizeof(*m)));
        m->size = sizeof(*m);
        m->arg_size = sizeof(weir_arg);
        m->case_size = sizeof(weir_case);
        if (!check_body(&d, m, name))
                return NULL;
        if ((m->args = adopt_args(&d, theirs->args, m->n_args, m->inst_size, 0)) == NULL)
                return NULL;
        m->cases = adopt_cases(&d, theirs);
        return m;
}
