/* Loaded before libc (LD_PRELOAD) into a process under test: a clock that can be set, and a power cut.
 *
 * SURVIVAL_CLOCK: a file whose first 8 bytes, a signed number of nanoseconds, are added to the wall clock.
 * SURVIVAL_POWER: a folder. Whenever a file with "spool-" in its name is fsynced, its bytes as of that
 * moment are copied there; what was written later, or never fsynced, is what a power cut takes away.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static volatile int64_t *offset;
static const char *power;

__attribute__((constructor)) static void load(void) {
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    power = getenv("SURVIVAL_POWER");
    const char *path = getenv("SURVIVAL_CLOCK");
    if (path == NULL) return;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    void *page = mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED) offset = page;
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    int result = real_clock_gettime(clock, out);
    if (result == 0 && offset != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t now = (int64_t)out->tv_sec * 1000000000 + out->tv_nsec + *offset;
        out->tv_sec = now / 1000000000;
        out->tv_nsec = now % 1000000000;
    }
    return result;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL) *out = now.tv_sec;
    return now.tv_sec;
}

static void keep(int file) {
    char link[64], name[4096], part[8500], whole[8400], block[1 << 16];
    if (power == NULL) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length <= 0) return;
    name[length] = 0;
    const char *base = strrchr(name, '/');
    if (base == NULL || strstr(base, "spool-") == NULL) return;
    snprintf(whole, sizeof whole, "%s/%s", power, base + 1);
    snprintf(part, sizeof part, "%s.part", whole);
    int out = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (out < 0) abort();
    off_t at = 0;
    ssize_t got;
    while ((got = pread(file, block, sizeof block, at)) > 0) {
        if (write(out, block, got) != got) abort();
        at += got;
    }
    close(out);
    if (got < 0 || rename(part, whole) != 0) abort();
}

int fsync(int file) {
    int result = real_fsync(file);
    if (result == 0) keep(file);
    return result;
}

int fdatasync(int file) {
    int result = real_fdatasync(file);
    if (result == 0) keep(file);
    return result;
}
