/*
 * The Priority field.
 *
 * The difficulty is that it is a dictionary of structured fields (RFC 8941 3.2), open to members
 * and parameters that nobody knows yet: they are stepped over, and only `u` and `i` are read.
 */
#include "http/h2_priority.h"

static void read_member(struct h2_priority *p, str member)
{
        str key, value = STR_NONE, rest;

        (void)str_cut(member, ';', &member, &rest); /* its parameters */
        member = str_trim(member);
        if (!str_cut(member, '=', &key, &value))
                key = member;
        if (str_eq(key, STR("u")) && value.n == 1 && value.p[0] >= '0' && value.p[0] <= '7')
                p->urgency = (uint8_t)(value.p[0] - '0');
        else if (str_eq(key, STR("i")) && (value.p == NULL || str_eq(value, STR("?1"))))
                p->incremental = true;
        else if (str_eq(key, STR("i")) && str_eq(value, STR("?0")))
                p->incremental = false;
}

void h2_priority_read(struct h2_priority *p, str field)
{
        str member;

        while (field.p != NULL) {
                (void)str_cut(field, ',', &member, &field);
                read_member(p, member);
        }
}
