/*
 * One arena for all tests of a program: up and down are the group's setup and teardown.
 */
#ifndef UNIT_MODULES_ONE_ARENA_H
#define UNIT_MODULES_ONE_ARENA_H

#include "base/arena.h"

static struct arena *arena;

static int up(void **state)
{
        (void)state;
        arena = arena_new(0);
        return 0;
}

static int down(void **state)
{
        (void)state;
        arena_free(arena);
        arena_thread_end();
        return 0;
}

#endif
