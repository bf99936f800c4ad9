/*
 * Regular expressions on PCRE2.
 *
 * The difficulty: patterns come from the operator, subjects from strangers.  A subject may drive a
 * pattern into its limit, and that must never look like "no match"; so whatever is neither a match
 * nor its plain absence is REGEX_LIMIT.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "base/regex.h"

#include "base/check.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>

#define JIT_STACK_FIRST (32 * KIB)
#define JIT_STACK_MAX   (512 * KIB)
#define HEAP_LIMIT_KIB  4096 /* of the interpreter, where there is no JIT */

/* Immutable once made; owned by whoever compiled it. */
struct regex {
        pcre2_code *code;
        uint32_t groups, names, name_size;
        const unsigned char *name_table;
        bool jit;
};

/* What one thread matches with; made on first use. */
static _Thread_local struct {
        pcre2_match_data *data;
        pcre2_match_context *context;
        pcre2_jit_stack *stack;
        uint32_t limit; /* that the context has */
} mine;

static uint32_t match_limit = REGEX_MATCH_LIMIT_DEFAULT;

void regex_set_match_limit(uint32_t limit)
{
        match_limit = limit;
}

static COLD void thread_begin(void)
{
        mine.data = pcre2_match_data_create(REGEX_GROUPS_MAX, NULL);
        mine.context = pcre2_match_context_create(NULL);
        mine.stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_MAX, NULL);
        CHECK(mine.data && mine.context);
        if (mine.stack) /* NULL where PCRE2 was built without JIT */
                pcre2_jit_stack_assign(mine.context, NULL, mine.stack);
        pcre2_set_heap_limit(mine.context, HEAP_LIMIT_KIB);
}

void regex_thread_end(void)
{
        pcre2_match_data_free(mine.data);
        pcre2_match_context_free(mine.context);
        pcre2_jit_stack_free(mine.stack);
        memset(&mine, 0, sizeof(mine));
}

static struct regex *refuse(struct regex *re, struct regex_error *err, size_t offset,
                            const char *text)
{
        err->offset = offset;
        snprintf(err->text, sizeof(err->text), "%s", text);
        regex_free(re);
        return NULL;
}

struct regex *regex_new(str pattern, unsigned flags, struct regex_error *err)
{
        /* DOLLAR_ENDONLY: $ is the end, not also before a last newline that a client added. */
        uint32_t options = PCRE2_NEVER_UTF | PCRE2_NEVER_UCP | PCRE2_NEVER_BACKSLASH_C |
                           PCRE2_DOLLAR_ENDONLY | (flags & REGEX_ICASE ? PCRE2_CASELESS : 0);
        struct regex *re = calloc(1, sizeof(*re));
        char text[sizeof(err->text)];
        PCRE2_SIZE offset = 0;
        uint32_t captures = 0;
        int code;

        CHECK(re != NULL);
        re->code = pcre2_compile((PCRE2_SPTR)(pattern.p ? pattern.p : ""), pattern.n, options,
                                 &code, &offset, NULL);
        if (!re->code) {
                pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof(text));
                return refuse(re, err, MIN(offset, pattern.n), text);
        }
        pcre2_pattern_info(re->code, PCRE2_INFO_CAPTURECOUNT, &captures);
        pcre2_pattern_info(re->code, PCRE2_INFO_NAMECOUNT, &re->names);
        pcre2_pattern_info(re->code, PCRE2_INFO_NAMEENTRYSIZE, &re->name_size);
        pcre2_pattern_info(re->code, PCRE2_INFO_NAMETABLE, &re->name_table);
        if (captures >= REGEX_GROUPS_MAX) {
                snprintf(text, sizeof(text), "%u groups, but %d are the most", captures,
                         REGEX_GROUPS_MAX - 1);
                return refuse(re, err, 0, text);
        }
        re->groups = captures + 1;
        re->jit = pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE) == 0;
        return re;
}

void regex_free(struct regex *re)
{
        if (!re)
                return;
        pcre2_code_free(re->code);
        free(re);
}

static void captures_fill(const struct regex *re, int filled, struct regex_captures *caps)
{
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(mine.data);

        caps->n = re->groups;
        for (uint32_t i = 0; i < re->groups; i++) {
                bool set = i < (uint32_t)filled && at[2 * i] != PCRE2_UNSET;
                caps->g[i].so = set ? (int32_t)at[2 * i] : -1;
                caps->g[i].eo = set ? (int32_t)at[2 * i + 1] : -1;
        }
}

enum regex_result regex_match(const struct regex *re, str subject, size_t start,
                              struct regex_captures *caps)
{
        PCRE2_SPTR p = (PCRE2_SPTR)(subject.p ? subject.p : "");
        int r;

        CHECK(start <= subject.n);
        if (subject.n > INT32_MAX)
                return REGEX_LIMIT;
        if (UNLIKELY(!mine.data))
                thread_begin();
        if (UNLIKELY(mine.limit != match_limit)) {
                mine.limit = match_limit;
                pcre2_set_match_limit(mine.context, match_limit);
        }
        if (re->jit)
                r = pcre2_jit_match(re->code, p, subject.n, start, 0, mine.data, mine.context);
        else
                r = pcre2_match(re->code, p, subject.n, start, 0, mine.data, mine.context);
        if (r == PCRE2_ERROR_NOMATCH)
                return REGEX_NO;
        if (r <= 0)
                return REGEX_LIMIT;
        if (caps)
                captures_fill(re, r, caps);
        return REGEX_YES;
}

uint32_t regex_groups(const struct regex *re)
{
        return re->groups;
}

/* A row of the table: the number in two bytes, then the name with a NUL; sorted by name. */
str regex_group_name(const struct regex *re, uint32_t i, int *group)
{
        const unsigned char *row = re->name_table + (size_t)i * re->name_size;

        if (i >= re->names)
                return STR_NONE;
        *group = row[0] << 8 | row[1];
        return str_z((const char *)row + 2);
}

int regex_group(const struct regex *re, str name)
{
        int group = -1;

        for (uint32_t i = 0; i < re->names; i++)
                if (str_eq(regex_group_name(re, i, &group), name))
                        return group;
        return -1;
}
