/*
 * JSON, out and in.
 *
 * The difficulty of writing: what is logged may be any bytes, and must still be valid JSON.  Of
 * reading: jansson keeps no positions, but functions want the source of arrays and objects; so the
 * text, known to be valid by then, is walked once more beside jansson's tree.
 */
#include <jansson.h> /* first: json.h renames two of ours that it also has */

#include "base/json.h"

#include "base/check.h"

#include <math.h>

static bool is_plain(char c)
{
        return (unsigned char)c >= 0x20 && (unsigned char)c < 0x80 && c != '"' && c != '\\';
}

/* One byte that cannot stand for itself, or one sequence of UTF-8; returns how many it took. */
static size_t put_special(struct buf *out, str s)
{
        static const char hex[] = "0123456789abcdef";
        static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* byte, letter, byte, letter ... */
        size_t n = str_utf8(s);

        if (n > 1) {
                buf_put(out, s.p, n);
                return n;
        }
        if (n == 0) {
                buf_puts(out, STR("\xef\xbf\xbd"));
                return 1;
        }
        for (size_t i = 0; i + 1 < sizeof(shorts); i += 2) {
                if (shorts[i] == s.p[0]) {
                        buf_put(out, (char[]){'\\', shorts[i + 1]}, 2);
                        return 1;
                }
        }
        buf_put(out, (char[]){'\\', 'u', '0', '0', hex[s.p[0] >> 4], hex[s.p[0] & 15]}, 6);
        return 1;
}

void json_string(struct buf *out, str s)
{
        buf_put(out, "\"", 1);
        while (s.n > 0) {
                size_t n = 0;
                while (n < s.n && is_plain(s.p[n]))
                        n++;
                buf_put(out, s.p, n);
                s = str_from(s, n);
                if (s.n > 0)
                        s = str_from(s, put_special(out, s));
        }
        buf_put(out, "\"", 1);
}

void json_begin(struct json_writer *w, struct buf *out)
{
        *w = (struct json_writer){.out = out};
}

/* Before each value, and each key: the comma; checks that a key stands where one belongs. */
static void separate(struct json_writer *w, bool is_key)
{
        int top = w->depth - 1;

        if (top >= 0 && w->kind[top] == '{')
                CHECK(is_key != w->key);
        else
                CHECK(!is_key);
        if (top >= 0 && !w->key) {
                if (w->some[top])
                        buf_put(w->out, ",", 1);
                w->some[top] = true;
        }
        w->key = is_key;
}

void json_open(struct json_writer *w, char kind)
{
        CHECK(w->depth < JSON_DEPTH_MAX && (kind == '{' || kind == '['));
        separate(w, false);
        w->kind[w->depth] = kind;
        w->some[w->depth++] = false;
        buf_put(w->out, &kind, 1);
}

void json_close(struct json_writer *w)
{
        CHECK(w->depth > 0 && !w->key);
        buf_put(w->out, w->kind[--w->depth] == '{' ? "}" : "]", 1);
}

void json_key(struct json_writer *w, str name)
{
        separate(w, true);
        json_string(w->out, name);
        buf_put(w->out, ":", 1);
}

static void put_word(struct json_writer *w, str word)
{
        separate(w, false);
        buf_puts(w->out, word);
}

void json_null(struct json_writer *w)
{
        put_word(w, STR("null"));
}

void json_bool(struct json_writer *w, bool v)
{
        put_word(w, v ? STR("true") : STR("false"));
}

void json_str(struct json_writer *w, str s)
{
        if (!s.p) {
                json_null(w);
                return;
        }
        separate(w, false);
        json_string(w->out, s);
}

void json_u64(struct json_writer *w, uint64_t v)
{
        char digits[20];

        put_word(w, str_of(digits, str_put_u64(digits, v)));
}

void json_i64(struct json_writer *w, int64_t v)
{
        char digits[21] = "-";
        size_t sign = v < 0;

        sign += str_put_u64(digits + sign, v < 0 ? -(uint64_t)v : (uint64_t)v);
        put_word(w, str_of(digits, sign));
}

void json_double(struct json_writer *w, double v)
{
        char text[STR_DOUBLE_MAX];

        if (isfinite(v))
                put_word(w, str_of(text, str_put_double(text, v)));
        else
                json_null(w);
}

/* Where the walk is in the source; p never passes the end because the text is valid. */
struct walk {
        struct arena *arena;
        const char *p;
};

static void skip_space(struct walk *w)
{
        while (*w->p == ' ' || *w->p == '\t' || *w->p == '\n' || *w->p == '\r')
                w->p++;
}

static void skip_string(struct walk *w)
{
        for (w->p++; *w->p != '"'; w->p++)
                if (*w->p == '\\')
                        w->p++;
        w->p++;
}

static void skip_word(struct walk *w) /* a number, true, false, null */
{
        w->p += strcspn(w->p, " \t\r\n,]}");
}

static struct json_value *build(struct walk *w, json_t *j, unsigned depth);

/* The elements or members of v, the walk being behind its bracket; false: too deep, or no memory.
 */
static bool build_children(struct walk *w, json_t *j, struct json_value *v, unsigned depth)
{
        bool object = json_is_object(j);
        size_t n = object ? json_object_size(j) : json_array_size(j);
        const struct json_value **elem = arena_alloc(w->arena, n * sizeof(*elem));
        void *member = object ? json_object_iter(j) : NULL;

        if (!elem)
                return false;
        for (size_t i = 0; i < n; i++) {
                struct json_value *child;
                str name = STR_NONE;
                skip_space(w);
                if (object) {
                        const char *key = json_object_iter_key(member);
                        name = arena_dup(w->arena, str_z(key));
                        skip_string(w);
                        skip_space(w);
                        w->p++; /* the colon */
                        child = name.p ? build(w, json_object_iter_value(member), depth) : NULL;
                        member = json_object_iter_next(j, member);
                } else {
                        child = build(w, json_array_get(j, i), depth);
                }
                if (!child)
                        return false;
                child->name = name;
                elem[i] = child;
                skip_space(w);
                w->p += *w->p == ',';
        }
        skip_space(w);
        w->p++; /* the bracket */
        v->n = n;
        v->elem = elem;
        return true;
}

static bool build_container(struct walk *w, json_t *j, struct json_value *v, unsigned depth)
{
        const char *start = w->p++;

        v->type = json_is_object(j) ? JSON_V_OBJECT : JSON_V_ARRAY;
        if (depth >= JSON_DEPTH_MAX || !build_children(w, j, v, depth + 1))
                return false;
        v->str = str_of(start, (size_t)(w->p - start));
        return true;
}

static bool build_string(struct walk *w, json_t *j, struct json_value *v)
{
        skip_string(w);
        v->type = JSON_V_STRING;
        v->str = arena_dup(w->arena, str_of(json_string_value(j), json_string_length(j)));
        return v->str.p != NULL;
}

static struct json_value *build(struct walk *w, json_t *j, unsigned depth)
{
        struct json_value *v = arena_zalloc(w->arena, sizeof(*v));

        if (!v)
                return NULL;
        v->size = sizeof(*v);
        skip_space(w);
        if (json_is_object(j) || json_is_array(j))
                return build_container(w, j, v, depth) ? v : NULL;
        if (json_is_string(j))
                return build_string(w, j, v) ? v : NULL;
        skip_word(w);
        if (json_is_integer(j)) {
                v->type = JSON_V_INTEGER;
                v->integer = json_integer_value(j);
                v->number = (double)v->integer;
        } else if (json_is_real(j)) {
                v->type = JSON_V_NUMBER;
                v->number = json_real_value(j);
        } else {
                v->type = json_is_boolean(j) ? JSON_V_BOOL : JSON_V_NULL;
                v->integer = json_is_true(j);
        }
        return v;
}

const struct json_value *json_parse(struct arena *a, str text)
{
        const struct json_value *v = NULL;
        struct walk w = {a, NULL};
        json_error_t error;
        json_t *j = json_loadb(text.p ? text.p : "", text.n,
                               JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);

        if (j)
                w.p = arena_dupz(a, text); /* its NUL ends the last word */
        if (w.p)
                v = build(&w, j, 0);
        json_decref(j);
        return v;
}
