/*
 * Memory by whole pages, beside malloc: what comes and goes in bursts would leave holes in the heap
 * that small things fill, and the memory of the burst would never go back.
 *
 * A mapping is a system call and a page fault, so users recycle what they have.  Any thread.
 */
#ifndef BASE_PAGE_H
#define BASE_PAGE_H

#include "base/defs.h"

#define PAGE_BYTES (4 * KIB)

void *page_map(size_t n); /* n bytes, zeroed, at a page's begin; aborts when memory is out */
void page_unmap(void *p, size_t n); /* the whole of what page_map(n) gave */

#endif
