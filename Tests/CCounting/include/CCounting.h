// Counts what a process allocates, and what Swift counts references for. For tests: linking it replaces malloc.

#ifndef CCOUNTING_H
#define CCOUNTING_H

struct ccounting_counts {
    // Calls of malloc, calloc, realloc and their aligned kin.
    unsigned long allocations;
    // Calls of swift_retain and swift_release, single and by the number.
    unsigned long references;
};

// Has the Swift runtime go through the counters from now on.
void ccounting_start(void);
// What the calling thread has done since it started.
struct ccounting_counts ccounting_read(void);

#endif
