// Counts what a process allocates, and what Swift counts references for. For tests: linking it replaces malloc.

#ifndef CCOUNTING_H
#define CCOUNTING_H

struct ccounting_counts {
    // Calls of malloc, calloc, realloc and their aligned kin.
    unsigned long allocations;
    // Calls of swift_retain and swift_release, single and by the number.
    unsigned long references;
};

// Begins to count, from 0, what the calling thread does. Not around strings: the runtime's seam takes the bits of a
// short one for an object (Swift 6.3).
void ccounting_start(void);
// Ends counting and says what was counted.
struct ccounting_counts ccounting_stop(void);

#endif
