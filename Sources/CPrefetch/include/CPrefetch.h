// What Swift has no word for: asking the processor for a cache line before it is needed.

#ifndef CPREFETCH_H
#define CPREFETCH_H

// Asks for the cache line at `address`, to be read soon. Any address will do.
static inline void cprefetch_read(const void *address) { __builtin_prefetch(address, 0, 3); }

#endif
