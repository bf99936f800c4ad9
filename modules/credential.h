/*
 * What the functions that ask clients who they are have in common: where a credential stands in a
 * request, how it is taken out before the request goes on, and how a challenge is written.
 *
 * Included by a module after <weir/module.h>.
 */
#ifndef MODULES_CREDENTIAL_H
#define MODULES_CREDENTIAL_H

/* Where to look, in this order; absent or empty: not there. */
struct credential_places {
        weir_str header, scheme; /* scheme: what the field's value must begin with ("Bearer") */
        weir_str query, cookie;
};

enum { CREDENTIAL_NONE = 0, CREDENTIAL_FOUND = 1, CREDENTIAL_SEVERAL = -1 };

static inline weir_str credential_trim(weir_str s)
{
        while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t'))
                s = weir_bytes(s.p + 1, s.n - 1);
        while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
                s.n--;
        return s;
}

/* "Scheme value" (RFC 9110 11.4): 1 and the value, or 0: another scheme. */
static inline int credential_of_scheme(weir_str field, weir_str scheme, weir_str *value)
{
        if (field.n <= scheme.n || field.p[scheme.n] != ' ' ||
            !weir_eq_icase(weir_bytes(field.p, scheme.n), scheme))
                return 0;
        *value = credential_trim(weir_bytes(field.p + scheme.n, field.n - scheme.n));
        return 1;
}

/* The next name=value of a Cookie field; 0 past the last.  *rest is what follows it. */
static inline int credential_next_pair(weir_str *rest, weir_str *pair, weir_str *name,
                                       weir_str *value)
{
        const char *end, *equal;

        if (rest->n == 0)
                return 0;
        end = memchr(rest->p, ';', rest->n);
        *pair = weir_bytes(rest->p, end ? (size_t)(end - rest->p) : rest->n);
        *rest = weir_bytes(rest->p + pair->n + (end != NULL), rest->n - pair->n - (end != NULL));
        *pair = credential_trim(*pair);
        equal = memchr(pair->p, '=', pair->n);
        *name = weir_bytes(pair->p, equal ? (size_t)(equal - pair->p) : pair->n);
        *value = equal ? weir_bytes(equal + 1, pair->n - name->n - 1) : weir_bytes(pair->p, 0);
        return 1;
}

static inline int credential_in_cookies(weir_req *r, weir_str wanted, weir_str *found)
{
        weir_str pair, name, value;
        weir_kv kv;
        int n = 0;

        for (size_t i = 0; weir->header_at(r, WEIR_REQUEST, i, &kv); i++) {
                if (!weir_eq_icase(kv.name, WEIR_STR("Cookie")))
                        continue;
                while (credential_next_pair(&kv.value, &pair, &name, &value)) {
                        if (!weir_eq(name, wanted))
                                continue;
                        *found = value;
                        n++;
                }
        }
        return n > 1 ? CREDENTIAL_SEVERAL : n;
}

/* FOUND and the value; NONE; or SEVERAL of one name, of which none can be believed. */
static inline int credential_find(weir_req *r, const struct credential_places *p, weir_str *value)
{
        weir_str v;
        int n;

        if (p->header.n > 0) {
                n = weir->header_get(r, WEIR_REQUEST, p->header, &v);
                if (n > 1)
                        return CREDENTIAL_SEVERAL;
                if (n == 1 && p->scheme.n == 0) {
                        *value = v;
                        return CREDENTIAL_FOUND;
                }
                if (n == 1 && credential_of_scheme(v, p->scheme, value))
                        return CREDENTIAL_FOUND;
        }
        if (p->query.n > 0 &&
            weir->var_get(r, weir->format(r, "arg_%.*s", WEIR_S(p->query)), value))
                return CREDENTIAL_FOUND;
        return p->cookie.n > 0 ? credential_in_cookies(r, p->cookie, value) : CREDENTIAL_NONE;
}

/* The value of one Cookie field without the pairs of that name.  It may become longer: a blank
 * follows each semicolon. */
static inline weir_str credential_without(weir_req *r, weir_str field, weir_str wanted)
{
        char *out = weir->alloc(r, 2 * field.n + 1), *to = out;
        weir_str pair, name, value;

        if (out == NULL)
                return weir_bytes(NULL, 0);
        while (credential_next_pair(&field, &pair, &name, &value)) {
                if (pair.n == 0 || weir_eq(name, wanted))
                        continue;
                if (to != out) {
                        memcpy(to, "; ", 2);
                        to += 2;
                }
                memcpy(to, pair.p, pair.n);
                to += pair.n;
        }
        return weir_bytes(out, (size_t)(to - out));
}

static inline weir_rc credential_remove_cookie(weir_req *r, weir_str wanted)
{
        int32_t n = weir->header_get(r, WEIR_REQUEST, WEIR_STR("Cookie"), NULL), k = 0;
        weir_str ignored, *values;
        weir_kv kv;

        if (credential_in_cookies(r, wanted, &ignored) == CREDENTIAL_NONE)
                return WEIR_CONTINUE;
        values = weir->alloc(r, (size_t)n * sizeof(*values));
        if (values == NULL)
                return WEIR_ERROR;
        for (size_t i = 0; k < n && weir->header_at(r, WEIR_REQUEST, i, &kv); i++)
                if (weir_eq_icase(kv.name, WEIR_STR("Cookie")))
                        values[k++] = credential_without(r, kv.value, wanted);
        if (weir->header_del(r, WEIR_REQUEST, WEIR_STR("Cookie")) < 0)
                return WEIR_ERROR;
        for (int32_t i = 0; i < k; i++)
                if ((values[i].p == NULL || values[i].n > 0) &&
                    weir->header_add(r, WEIR_REQUEST, WEIR_STR("Cookie"), values[i]))
                        return WEIR_ERROR;
        return WEIR_CONTINUE;
}

/* Takes the credential out of all places, so that the server does not see it. */
static inline weir_rc credential_remove(weir_req *r, const struct credential_places *p)
{
        weir_str v, arg = weir->format(r, "arg_%.*s", WEIR_S(p->query));
        int n = p->header.n > 0 ? weir->header_get(r, WEIR_REQUEST, p->header, &v) : 0;

        if (n > 0 && (p->scheme.n == 0 || credential_of_scheme(v, p->scheme, &v)) &&
            weir->header_del(r, WEIR_REQUEST, p->header) < 0)
                return WEIR_ERROR;
        if (p->query.n > 0 && weir->var_get(r, arg, &v) && weir->var_del(r, arg))
                return WEIR_ERROR;
        return p->cookie.n > 0 ? credential_remove_cookie(r, p->cookie) : WEIR_CONTINUE;
}

/* The value as a quoted string of a challenge; in create.  Failed, and an error, where it cannot be
 * one. */
static inline weir_str credential_quoted(weir_conf *c, const weir_str *s)
{
        char *out = weir->alloc(c, 2 * s->n + 3), *to = out;
        int good = 1;

        *to++ = '"';
        for (size_t i = 0; i < s->n; i++) {
                unsigned char b = (unsigned char)s->p[i];
                if (b < ' ' || b == 127) {
                        weir->conf_error(c, s->p + i, "it holds a control character");
                        good = 0;
                }
                if (b == '"' || b == '\\')
                        *to++ = '\\';
                *to++ = (char)b;
        }
        *to++ = '"';
        return weir_bytes(good ? out : NULL, (size_t)(to - out));
}

/* ------------------------------------------------------------------ what is known of it */

/* A member by its whole name, else by its parts between dots: "realm_access.roles". */
static inline const weir_value *credential_member(const weir_value *v, weir_str path)
{
        const weir_value *whole = weir_get(v, path);
        const char *dot;

        if (whole != NULL)
                return whole;
        while (v != NULL && (dot = memchr(path.p, '.', path.n)) != NULL) {
                weir_str part = weir_bytes(path.p, (size_t)(dot - path.p));
                v = weir_get(v, part);
                path = weir_bytes(dot + 1, path.n - part.n - 1);
        }
        return weir_get(v, path);
}

/* As text: strings and numbers as they are, an array's elements with blanks between, an object as
 * JSON.  Absent: null, or memory is used up. */
static inline weir_str credential_text(weir_task *t, const weir_value *v)
{
        weir_str out = {NULL, 0};

        switch (v ? v->type : WEIR_V_NULL) {
        case WEIR_V_STRING:
        case WEIR_V_OBJECT:
                return v->str;
        case WEIR_V_BOOL:
                return v->integer ? WEIR_STR("true") : WEIR_STR("false");
        case WEIR_V_INTEGER:
                return weir->format(t, "%lld", (long long)v->integer);
        case WEIR_V_NUMBER:
                return weir->format(t, "%.17g", v->number);
        case WEIR_V_ARRAY:
                break;
        default:
                return out;
        }
        out = WEIR_STR("");
        for (size_t i = 0; i < v->n && out.p != NULL; i++) {
                weir_str one = v->elem[i]->type == WEIR_V_ARRAY ? v->elem[i]->str
                                                                : credential_text(t, v->elem[i]);
                if (one.p != NULL)
                        out = weir->format(t, "%.*s%s%.*s", WEIR_S(out), out.n ? " " : "",
                                           WEIR_S(one));
        }
        return out;
}

/* A line `field NAME as VARIABLE`. */
struct credential_field {
        weir_str name, variable;
};

static WEIR_UNUSED const weir_arg credential_field_line[] = {
        WEIR_ARG(struct credential_field, name, STR, WEIR_BARE | WEIR_REQUIRED, NULL,
                 "What is wanted."),
        WEIR_LITERAL("as"),
        WEIR_ARG(struct credential_field, variable, VAR, WEIR_BARE | WEIR_REQUIRED, NULL,
                 "Variable that receives it."),
};

/* The n fields of an object, as text; absent ones are absent. */
static inline void credential_read(weir_task *t, const weir_value *object,
                                   const struct credential_field *field, size_t n, weir_str *values)
{
        for (size_t i = 0; i < n; i++)
                values[i] = credential_text(t, credential_member(object, field[i].name));
}

/* Who it is, is known: sets the variables, and takes out the credential, from no places if the
 * server may see it. */
static inline weir_rc credential_accept(weir_req *r, const struct credential_field *field, size_t n,
                                        const weir_str *values,
                                        const struct credential_places *places)
{
        for (size_t i = 0; i < n; i++)
                if (values[i].p != NULL && weir->var_set(r, field[i].variable, values[i]))
                        return WEIR_ERROR;
        return places ? credential_remove(r, places) : WEIR_CONTINUE;
}

/* Several texts as one, which can be kept outside of a task: `head` bytes of the caller's own, and
 * of each text its length and its bytes.  Failed when memory is used up. */
#define CREDENTIAL_ABSENT UINT32_MAX /* in place of a length */

static inline weir_str credential_pack(weir_task *t, const void *head, size_t n_head,
                                       const weir_str *texts, size_t n)
{
        size_t size = n_head;
        char *p, *to;

        for (size_t i = 0; i < n; i++)
                size += sizeof(uint32_t) + texts[i].n;
        p = weir->alloc(t, size);
        if (p == NULL)
                return weir_bytes(NULL, 0);
        to = (char *)memcpy(p, head, n_head) + n_head;
        for (size_t i = 0; i < n; i++) {
                uint32_t len = texts[i].p ? (uint32_t)texts[i].n : CREDENTIAL_ABSENT;
                to = (char *)memcpy(to, &len, sizeof(len)) + sizeof(len);
                if (texts[i].n > 0)
                        to = (char *)memcpy(to, texts[i].p, texts[i].n) + texts[i].n;
        }
        return weir_bytes(p, size);
}

/* 0: it is not whole. */
static inline int credential_unpack(weir_str packed, size_t n_head, weir_str *texts, size_t n)
{
        const char *p = packed.p + n_head, *end = packed.p + packed.n;

        if (packed.n < n_head)
                return 0;
        for (size_t i = 0; i < n; i++) {
                uint32_t len;
                if ((size_t)(end - p) < sizeof(len))
                        return 0;
                memcpy(&len, p, sizeof(len));
                p += sizeof(len);
                texts[i] = weir_bytes(NULL, 0);
                if (len == CREDENTIAL_ABSENT)
                        continue;
                if ((size_t)(end - p) < len)
                        return 0;
                texts[i] = weir_bytes(p, len);
                p += len;
        }
        return p == end;
}

#endif
