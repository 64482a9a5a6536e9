/* A wall clock that jumps, for LD_PRELOAD: adds the seconds in the file $JUMPED to what the clock says.
   The monotonic clock stays, and so does gRPC's own waiting, which the kernel would wake by the true clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long jumped(const void *caller) {
    Dl_info from;
    char text[32] = {0};
    const char *path = getenv("JUMPED");
    if (!path || (caller && dladdr(caller, &from) && from.dli_fname && strstr(from.dli_fname, "cygrpc"))) return 0;
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    long count = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    return count > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int done = (int)syscall(SYS_clock_gettime, clock, now);
    if (!done && clock == CLOCK_REALTIME) now->tv_sec += jumped(__builtin_return_address(0));
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int done = (int)syscall(SYS_gettimeofday, now, zone);
    if (!done) now->tv_sec += jumped(0);
    return done;
}

time_t time(time_t *now) {
    struct timeval read;
    gettimeofday(&read, 0);
    if (now) *now = read.tv_sec;
    return read.tv_sec;
}
