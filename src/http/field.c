/*
 * Rules about fields.
 *
 * The difficulty: values are checked byte by byte for every field of every message, so eight bytes
 * are looked at in one step and only a word that holds a control is looked at closely.
 */
#include "http/field.h"

#include <endian.h>
#include <time.h>

#define T FIELD_C_TOKEN
#define X FIELD_C_TEXT
#define U FIELD_C_TARGET
#define H FIELD_C_HOST
#define D FIELD_C_HEX

/* RFC 9110 5.6.2 (token) and 5.5 (text); in a target every visible byte but '#' is let through,
 * also those that a URI should have escaped, because clients send them. */
const unsigned char field_chars[256] = {
        ['\t'] = X,
        [' '] = X,
        ['!'] = T | X | U | H,
        ['"'] = X | U,
        ['#'] = T | X,
        ['$'] = T | X | U | H,
        ['%'] = T | X | U,
        ['&'] = T | X | U | H,
        ['\''] = T | X | U | H,
        ['('] = X | U | H,
        [')'] = X | U | H,
        ['*'] = T | X | U | H,
        ['+'] = T | X | U | H,
        [','] = X | U,
        ['-'] = T | X | U | H,
        ['.'] = T | X | U | H,
        ['/'] = X | U,
        ['0' ... '9'] = T | X | U | H | D,
        [':'] = X | U,
        [';'] = X | U | H,
        ['<'] = X | U,
        ['='] = X | U | H,
        ['>'] = X | U,
        ['?'] = X | U,
        ['@'] = X | U,
        ['A' ... 'F'] = T | X | U | H | D,
        ['G' ... 'Z'] = T | X | U | H,
        ['['] = X | U,
        ['\\'] = X | U,
        [']'] = X | U,
        ['^'] = T | X | U,
        ['_'] = T | X | U | H,
        ['`'] = T | X | U,
        ['a' ... 'f'] = T | X | U | H | D,
        ['g' ... 'z'] = T | X | U | H,
        ['{'] = X | U,
        ['|'] = T | X | U,
        ['}'] = X | U,
        ['~'] = T | X | U | H,
        [0x80 ... 0xff] = X | U,
};

#undef T
#undef X
#undef U
#undef H
#undef D

size_t field_text_end(str s, size_t i)
{
        const uint64_t ones = UINT64_C(0x0101010101010101), high = ones * 0x80;
        while (i + 8 <= s.n) {
                uint64_t w, del, found;
                memcpy(&w, s.p + i, 8);
                w = le64toh(w);
                del = w ^ ones * 0x7f;
                /* The lowest bit marks a control; those above it may be wrong by a borrow. */
                found = (((w - ones * 0x20) & ~w) | ((del - ones) & ~del)) & high;
                if (found == 0) {
                        i += 8;
                        continue;
                }
                i += (size_t)__builtin_ctzll(found) >> 3;
                if (s.p[i] != '\t')
                        return i;
                i++;
        }
        while (i < s.n && (field_chars[(unsigned char)s.p[i]] & FIELD_C_TEXT))
                i++;
        return i;
}

bool field_name_ok(str name)
{
        for (size_t i = 0; i < name.n; i++)
                if (!(field_chars[(unsigned char)name.p[i]] & FIELD_C_TOKEN))
                        return false;
        return name.n > 0;
}

static inline bool is_blank(char c)
{
        return c == ' ' || c == '\t';
}

bool field_value_ok(str v)
{
        if (v.n == 0)
                return true;
        return !is_blank(v.p[0]) && !is_blank(v.p[v.n - 1]) && field_text_end(v, 0) == v.n;
}

bool field_list_next(str *rest, str *elem)
{
        while (rest->n > 0) {
                size_t i = 0;
                bool quoted = false;
                for (; i < rest->n && (quoted || rest->p[i] != ','); i++) {
                        if (quoted && rest->p[i] == '\\' && i + 1 < rest->n)
                                i++;
                        else if (rest->p[i] == '"')
                                quoted = !quoted;
                }
                str e = str_trim(str_head(*rest, i));
                *rest = str_from(*rest, i < rest->n ? i + 1 : i);
                if (e.n > 0) {
                        *elem = e;
                        return true;
                }
        }
        return false;
}

bool field_list_has(str list, str token)
{
        for (str e; field_list_next(&list, &e);)
                if (str_ieq(e, token))
                        return true;
        return false;
}

bool field_settable(enum field_id id)
{
        return !(field_flags_of(id) & (FIELD_F_FRAMING | FIELD_F_HOP));
}

/* Deletes what one Connection value nominates. */
static void strip_nominated(struct fields *f, str list)
{
        if (LIKELY(str_ieq(list, STR("keep-alive")) || str_ieq(list, STR("close"))))
                return;
        for (str name; field_list_next(&list, &name);) {
                if (str_ieq(name, STR("close")) || str_ieq(name, STR("keep-alive")))
                        continue;
                if (field_flags_of(field_id_of(name)) & FIELD_F_FRAMING)
                        continue;
                FIELDS_EACH(one, f)
                {
                        if (!(one->flags & FIELD_OWN) && str_ieq(one->name, name))
                                one->flags |= FIELD_DELETED;
                }
        }
}

void field_strip_hop(struct fields *fs)
{
        static const uint64_t hop = 0
#define FIELD(id, name, flags) | ((flags)&FIELD_F_HOP ? FIELD_BIT(FIELD_##id) : 0)
#include "http/header.tbl"
#undef FIELD
                ;
        if (!(fs->ids & hop)) /* Connection is one itself */
                return;
        FIELDS_EACH(c, fs)
        {
                if (c->id == FIELD_CONNECTION)
                        strip_nominated(fs, c->value);
        }
        FIELDS_EACH(h, fs)
        {
                if (h->id != FIELD_OTHER && (field_flags_of(h->id) & FIELD_F_HOP))
                        h->flags |= FIELD_DELETED;
        }
}

str field_date(int64_t wall_us)
{
        static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
        static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                           "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
        static _Thread_local char text[30];
        static _Thread_local int64_t when = -1;
        time_t s = (time_t)(wall_us / SEC);
        if (s != when) {
                struct tm tm;
                char *p = text;
                gmtime_r(&s, &tm);
                memcpy(p, days[tm.tm_wday], 3);
                memcpy(p + 3, ", ", 2);
                p[5] = (char)('0' + tm.tm_mday / 10);
                p[6] = (char)('0' + tm.tm_mday % 10);
                p[7] = ' ';
                memcpy(p + 8, months[tm.tm_mon], 3);
                p[11] = ' ';
                int year = tm.tm_year + 1900;
                for (int i = 15; i > 11; i--, year /= 10)
                        p[i] = (char)('0' + year % 10);
                const int clock[3] = {tm.tm_hour, tm.tm_min, tm.tm_sec};
                for (int i = 0; i < 3; i++) {
                        p[16 + i * 3] = i ? ':' : ' ';
                        p[17 + i * 3] = (char)('0' + clock[i] / 10);
                        p[18 + i * 3] = (char)('0' + clock[i] % 10);
                }
                memcpy(p + 25, " GMT", 4);
                when = s;
        }
        return str_of(text, 29);
}
