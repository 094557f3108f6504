// A wall clock of its own for one process: preloaded, adds what a file says to every answer of the kernel's real-time
// clocks. The file is mapped, so that a write to it is a jump of the clock of the running process.

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset_nanoseconds;

__attribute__((constructor)) static void map_offset(void) {
    const char *path = getenv("CLOCK_OFFSET_FILE");
    int descriptor = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = descriptor < 0 ? MAP_FAILED : mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, descriptor, 0);
    // A test that believes in a clock which is not there would pass for nothing.
    if (mapped == MAP_FAILED) abort();
    close(descriptor);
    offset_nanoseconds = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result != 0 || !offset_nanoseconds || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) {
        return result;
    }
    int64_t total = time->tv_sec * INT64_C(1000000000) + time->tv_nsec + *offset_nanoseconds;
    time->tv_sec = total / 1000000000;
    time->tv_nsec = total % 1000000000;
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    if (clock_gettime(CLOCK_REALTIME, &precise) != 0) return -1;
    time->tv_sec = precise.tv_sec;
    time->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (result) *result = precise.tv_sec;
    return precise.tv_sec;
}
