/*
 * What AddressSanitizer is told about memory that weir recycles itself: a recycled object must not
 * be touched, although malloc still counts it as in use.  Nothing without the sanitizer.
 */
#ifndef BASE_ASAN_H
#define BASE_ASAN_H

#if defined(__SANITIZE_ADDRESS__)
#define WEIR_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define WEIR_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WEIR_ASAN 1
#elif __has_feature(thread_sanitizer)
#define WEIR_TSAN 1
#endif
#endif

/* malloc is the sanitizer's own: what the C library tells of its heap is about one that nobody
 * uses. */
#if defined(WEIR_ASAN) || defined(WEIR_TSAN)
#define WEIR_OTHER_HEAP 1
#endif

#ifdef WEIR_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n)   ASAN_POISON_MEMORY_REGION((p), (n))
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))
#else
#define POISON(p, n)   ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

#endif
