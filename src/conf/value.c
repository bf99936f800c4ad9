/*
 * Times, sizes, rates and numbers as the configuration writes them, both ways.
 */
#include "conf/value.h"

#include <stdio.h>

#define MINUTE (60 * SEC)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

struct unit {
        const char *name;
        int64_t factor;
};

/* Largest first: printing takes the first that divides. */
static const struct unit times[] = {
        {"d", DAY}, {"h", HOUR}, {"m", MINUTE}, {"s", SEC}, {"ms", MSEC},
};
static const struct unit sizes[] = {
        {"g", INT64_C(1) << 30},
        {"m", INT64_C(1) << 20},
        {"k", INT64_C(1) << 10},
        {"", 1},
};

static const struct unit *unit_find(const struct unit *u, size_t n, str name)
{
        for (size_t i = 0; i < n; i++) {
                if (str_eq(name, str_z(u[i].name)))
                        return &u[i];
        }
        return NULL;
}

/* Digits and a unit. */
static bool value_unit(str s, const struct unit *units, size_t n_units, int64_t *out)
{
        size_t n = 0;
        uint64_t v;

        while (n < s.n && s.p[n] >= '0' && s.p[n] <= '9')
                n++;
        const struct unit *u = unit_find(units, n_units, str_from(s, n));
        if (!u || !str_u64(str_head(s, n), (uint64_t)(INT64_MAX / u->factor), &v))
                return false;
        *out = (int64_t)v * u->factor;
        return true;
}

bool value_time(str s, int64_t *us)
{
        if (str_eq(s, STR("0"))) {
                *us = 0;
                return true;
        }
        return value_unit(s, times, COUNT(times), us);
}

bool value_size(str s, int64_t *bytes)
{
        return value_unit(s, sizes, COUNT(sizes), bytes);
}

bool value_int(str s, int64_t *out)
{
        bool negative = str_starts(s, STR("-"));
        uint64_t v;

        if (!str_u64(str_from(s, negative), INT64_MAX, &v))
                return false;
        *out = negative ? -(int64_t)v : (int64_t)v;
        return true;
}

/* Digits with at most one point; the fraction counts to 15 digits. */
bool value_number(str s, double *out)
{
        bool negative = str_starts(s, STR("-")), percent = str_ends(s, STR("%"));
        double v = 0, scale = 1;
        size_t digits = 0;
        bool point = false;

        s = str_from(s, negative);
        s.n -= percent && s.n > 0;
        if (s.n > 24)
                return false;
        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] == '.' && !point) {
                        point = true;
                        continue;
                }
                if (s.p[i] < '0' || s.p[i] > '9')
                        return false;
                v = v * 10 + (s.p[i] - '0');
                scale *= point ? 10 : 1;
                digits++;
        }
        if (digits == 0)
                return false;
        v /= scale * (percent ? 100 : 1);
        *out = negative ? -v : v;
        return true;
}

bool value_bool(str s, bool *out)
{
        if (!str_eq(s, STR("on")) && !str_eq(s, STR("off")))
                return false;
        *out = s.n == 2;
        return true;
}

bool value_rate(str s, weir_rate *out)
{
        str count, per;
        uint64_t n;
        int64_t us;

        if (!str_cut(s, '/', &count, &per) || !str_u64(count, INT64_MAX, &n))
                return false;
        const struct unit *u = unit_find(times, COUNT(times), per);
        if (u)
                us = u->factor;
        else if (!value_unit(per, times, COUNT(times), &us) || us == 0)
                return false;
        *out = (weir_rate){(int64_t)n, us};
        return true;
}

bool value_name(str s)
{
        for (size_t i = 0; i < s.n; i++) {
                char c = s.p[i];
                bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
                bool digit = c >= '0' && c <= '9';
                if (!letter && !digit && c != '_' && c != '-' && c != '.')
                        return false;
        }
        return s.n > 0 && s.n <= 128;
}

static str unit_text(uint64_t v, const struct unit *units, size_t n, char out[VALUE_TEXT])
{
        size_t i = 0;

        while (i + 1 < n && v % (uint64_t)units[i].factor)
                i++;
        int len = snprintf(out, VALUE_TEXT, "%llu%s",
                           (unsigned long long)(v / (uint64_t)units[i].factor), units[i].name);
        return str_of(out, (size_t)len);
}

str value_time_text(int64_t us, char out[VALUE_TEXT])
{
        return us == 0 ? STR("0s") : unit_text((uint64_t)us, times, COUNT(times), out);
}

str value_size_text(uint64_t bytes, char out[VALUE_TEXT])
{
        return bytes == 0 ? STR("0") : unit_text(bytes, sizes, COUNT(sizes), out);
}
