#define _GNU_SOURCE 1

#include "CCounting.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// glibc's own names, for whoever replaces the public ones.
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static __thread struct ccounting_counts counts __attribute__((tls_model("initial-exec")));

void *malloc(size_t size) {
    counts.allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    counts.allocations++;
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    counts.allocations++;
    return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size) {
    counts.allocations++;
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **result, size_t alignment, size_t size) {
    void *memory = memalign(alignment, size);
    if (memory == NULL) return ENOMEM;
    *result = memory;
    return 0;
}

// The runtime's seam for instruments: it goes through these pointers once the flag is set.
extern bool _swift_enableSwizzlingOfAllocationAndRefCountingFunctions_forInstrumentsOnly;
extern void *(*_swift_retain)(void *);
extern void *(*_swift_retain_n)(void *, uint32_t);
extern void (*_swift_release)(void *);
extern void (*_swift_release_n)(void *, uint32_t);

// Optimised code expects most registers to be as they were after a retain or release.
#define KEEPS_REGISTERS __attribute__((preserve_most))

static void *(*retain)(void *);
static void *(*retain_n)(void *, uint32_t);
static void (*release)(void *);
static void (*release_n)(void *, uint32_t);

KEEPS_REGISTERS static void *count_retain(void *object) {
    counts.references++;
    return retain(object);
}

KEEPS_REGISTERS static void *count_retain_n(void *object, uint32_t number) {
    counts.references++;
    return retain_n(object, number);
}

KEEPS_REGISTERS static void count_release(void *object) {
    counts.references++;
    release(object);
}

KEEPS_REGISTERS static void count_release_n(void *object, uint32_t number) {
    counts.references++;
    release_n(object, number);
}

void ccounting_start(void) {
    if (retain == NULL) {
        retain = _swift_retain;
        retain_n = _swift_retain_n;
        release = _swift_release;
        release_n = _swift_release_n;
        _swift_retain = (void *(*)(void *))count_retain;
        _swift_retain_n = (void *(*)(void *, uint32_t))count_retain_n;
        _swift_release = (void (*)(void *))count_release;
        _swift_release_n = (void (*)(void *, uint32_t))count_release_n;
    }
    counts = (struct ccounting_counts){0};
    _swift_enableSwizzlingOfAllocationAndRefCountingFunctions_forInstrumentsOnly = true;
}

struct ccounting_counts ccounting_stop(void) {
    _swift_enableSwizzlingOfAllocationAndRefCountingFunctions_forInstrumentsOnly = false;
    return counts;
}
