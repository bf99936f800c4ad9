/*
 * Canaries: terms and verdict (canary.h).
 *
 * The difficulty is to be neither blind nor nervous: a look is taken four times a second, so one
 * that ends the canary early must be nearly certain, or chance would end every long one; and a
 * generation that answers nothing at all must not pass for one without traffic.
 */
#include "daemon/canary.h"

#include "conf/value.h"

#include <math.h>
#include <stdio.h>

#define ENOUGH 20 /* requests of a side that can be judged */
#define EARLY  5  /* bad ones that can end it early */

/* In standard deviations. */
#define CERTAIN 4.5
#define SURE    2.6

/* "Slow" is what takes longer than this made of the time in which 9 of 10 of the old one's are
 * answered; so many more of them, of all, are too many. */
#define SLOW_TIMES 1.5
#define SLOW_MORE  (5 * MSEC)
#define SLOW_SHARE 0.1

/* ------------------------------------------------------------------ terms */

static bool share_of(str text, uint32_t *out)
{
        double v;

        if (!value_number(text, &v) || !(v >= 0 && v <= 1))
                return false;
        *out = (uint32_t)lround(v * TRIAL_PARTS);
        return true;
}

bool canary_share(str text, uint32_t *out)
{
        uint32_t v;

        if (!share_of(text, &v) || v == 0 || v == TRIAL_PARTS)
                return false;
        *out = v;
        return true;
}

bool canary_tolerance(str text, uint32_t *out)
{
        return share_of(text, out);
}

bool canary_period(str text, int64_t *out)
{
        int64_t us;

        if (!value_time(text, &us) || us < CANARY_PERIOD_MIN || us > CANARY_PERIOD_MAX)
                return false;
        *out = us;
        return true;
}

/* ------------------------------------------------------------------ comparing */

/* So many of so many were bad, on each side. */
struct rates {
        uint64_t bad[CANARY_SIDES], all[CANARY_SIDES];
};

static double rate(const struct rates *r, enum canary_side s)
{
        return r->all[s] ? (double)r->bad[s] / (double)r->all[s] : 0;
}

static double term(double seen, double expected)
{
        return seen > 0 ? seen * log(seen / expected) : 0;
}

/* How far the new side's rate is above the old one's, in standard deviations: the signed root of
 * the likelihood ratio.  Where the old one was asked little, the rest up to ENOUGH is taken to have
 * gone well. */
static double excess(const struct rates *r)
{
        double old_all = (double)MAX(r->all[CANARY_OLD], ENOUGH),
               new_all = (double)r->all[CANARY_NEW];
        double old_bad = (double)r->bad[CANARY_OLD], new_bad = (double)r->bad[CANARY_NEW];
        double p = (old_bad + new_bad) / (old_all + new_all), sum;

        if (new_all == 0 || p == 0 || p == 1 || new_bad / new_all <= old_bad / old_all)
                return 0;
        sum = term(new_bad, new_all * p) + term(new_all - new_bad, new_all * (1 - p)) +
              term(old_bad, old_all * p) + term(old_all - old_bad, old_all * (1 - p));
        return sqrt(MAX(2 * sum, 0));
}

static bool worse(const struct rates *r, double tolerated, double level)
{
        return rate(r, CANARY_NEW) > rate(r, CANARY_OLD) + tolerated && excess(r) >= level;
}

/* Counts of different moments: never more bad ones than there are. */
static struct rates rates_of(const struct trial_sum *s, enum trial_cell bad, enum trial_cell all)
{
        struct rates r;

        for (unsigned i = 0; i < CANARY_SIDES; i++) {
                r.all[i] = s[i].cells[all];
                r.bad[i] = MIN(s[i].cells[bad], r.all[i]);
        }
        return r;
}

static struct rates unanswered(const struct trial_sum *s)
{
        struct rates r;

        for (unsigned i = 0; i < CANARY_SIDES; i++) {
                r.all[i] = s[i].cells[TRIAL_REQUESTS];
                r.bad[i] = r.all[i] - MIN(s[i].cells[TRIAL_ANSWERED], r.all[i]);
        }
        return r;
}

static uint64_t slow_from(const struct trial_sum *s)
{
        return (uint64_t)((double)trial_quantile(&s[CANARY_OLD], 900) * SLOW_TIMES) + SLOW_MORE;
}

static struct rates slow(const struct trial_sum *s)
{
        unsigned from = trial_bucket(slow_from(s));
        struct rates r = {{0}, {0}};

        for (unsigned i = 0; i < CANARY_SIDES; i++) {
                for (unsigned b = 0; b < TRIAL_BUCKETS; b++) {
                        r.all[i] += s[i].cells[TRIAL_TIMES + b];
                        r.bad[i] += b > from ? s[i].cells[TRIAL_TIMES + b] : 0;
                }
        }
        return r;
}

static bool enough(const struct rates *r)
{
        return r->all[CANARY_NEW] >= ENOUGH && r->all[CANARY_OLD] >= ENOUGH;
}

/* ------------------------------------------------------------------ words */

static void say(char out[CANARY_REASON], const struct rates *r, const char *what)
{
        snprintf(out, CANARY_REASON,
                 "%.3g %% of its requests %s (%llu of %llu), %.3g %% of the old one's (%llu of "
                 "%llu)",
                 100 * rate(r, CANARY_NEW), what, (unsigned long long)r->bad[CANARY_NEW],
                 (unsigned long long)r->all[CANARY_NEW], 100 * rate(r, CANARY_OLD),
                 (unsigned long long)r->bad[CANARY_OLD], (unsigned long long)r->all[CANARY_OLD]);
}

static void say_slow(char out[CANARY_REASON], const struct rates *r, uint64_t from)
{
        char what[64];

        snprintf(what, sizeof(what), "took longer than %.3g ms", (double)from / MSEC);
        say(out, r, what);
}

static void say_good(char out[CANARY_REASON], const struct trial_sum *s, const struct rates *errors)
{
        char what[64];

        snprintf(what, sizeof(what), "failed, 9 in 10 took at most %.3g ms",
                 (double)trial_quantile(&s[CANARY_NEW], 900) / MSEC);
        say(out, errors, what);
}

/* ------------------------------------------------------------------ the verdict */

static bool is_bad(const struct rates *r, double tolerated, bool over)
{
        return (over || r->bad[CANARY_NEW] >= EARLY) && worse(r, tolerated, over ? SURE : CERTAIN);
}

/* Too little to tell chance from fault: what went wrong is taken for a fault. */
static enum canary_verdict judge_little(const struct rates *errors, const struct rates *failures,
                                        const struct rates *open, double tolerated,
                                        char reason[CANARY_REASON])
{
        static const char little[] = "too little traffic to judge";
        bool none = open->all[CANARY_NEW] > 0 && open->bad[CANARY_NEW] == open->all[CANARY_NEW] &&
                    rate(open, CANARY_OLD) <= 0.5;
        const struct rates *r = worse(errors, tolerated, 0)     ? errors
                                : worse(failures, tolerated, 0) ? failures
                                : none                          ? open
                                                                : NULL;
        int n;

        if (r == NULL) {
                snprintf(reason, CANARY_REASON,
                         "%s, and nothing speaks against it (%llu requests, %llu of the old one)",
                         little, (unsigned long long)open->all[CANARY_NEW],
                         (unsigned long long)open->all[CANARY_OLD]);
                return CANARY_PROMOTE;
        }
        n = snprintf(reason, CANARY_REASON, "%s, but %llu of its %llu requests ", little,
                     (unsigned long long)r->bad[CANARY_NEW],
                     (unsigned long long)r->all[CANARY_NEW]);
        snprintf(reason + n, CANARY_REASON - (size_t)n, "%s",
                 r == errors     ? "ended in errors"
                 : r == failures ? "had a function fail"
                                 : "were not answered");
        return CANARY_BACK;
}

enum canary_verdict canary_judge(const struct canary_terms *t,
                                 const struct trial_sum sides[CANARY_SIDES], int64_t elapsed,
                                 bool over, char reason[CANARY_REASON])
{
        struct rates errors = rates_of(sides, TRIAL_ERRORS, TRIAL_ANSWERED);
        struct rates failures = rates_of(sides, TRIAL_FAILED, TRIAL_ANSWERED);
        struct rates open = unanswered(sides), late = slow(sides);
        double tolerated = (double)t->tolerance / TRIAL_PARTS;
        bool warm = over || elapsed >= t->period / 4; /* what was just begun is slow at first */

        if (over && !enough(&open))
                return judge_little(&errors, &failures, &open, tolerated, reason);
        if (is_bad(&errors, tolerated, over)) {
                say(reason, &errors, "ended in errors");
                return CANARY_BACK;
        }
        if (is_bad(&failures, tolerated, over)) {
                say(reason, &failures, "had a function fail");
                return CANARY_BACK;
        }
        if (warm && enough(&open) && is_bad(&open, SLOW_SHARE, over)) {
                say(reason, &open, "were not answered yet");
                return CANARY_BACK;
        }
        if (warm && enough(&late) && is_bad(&late, SLOW_SHARE, over)) {
                say_slow(reason, &late, slow_from(sides));
                return CANARY_BACK;
        }
        if (!over)
                return CANARY_WAIT;
        say_good(reason, sides, &errors);
        return CANARY_PROMOTE;
}
