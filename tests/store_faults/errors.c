/* Preloaded into a process with LD_PRELOAD. While the file FAULT_FILE holds an error number, every write below FAULT_DIR
 * fails with that error: 30 for a file system remounted read-only, 5 for a broken disk, 28 for a full one. Reads still
 * work. A negative number makes the disk slow: each write takes that number of milliseconds longer. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fault(const char *path) {
    const char *dir = getenv("FAULT_DIR"), *control = getenv("FAULT_FILE");
    char number[16] = {0};
    if (!dir || !control || !path || strncmp(path, dir, strlen(dir)))
        return 0;
    long file = syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0)
        return 0;
    long n = syscall(SYS_read, file, number, sizeof number - 1);
    syscall(SYS_close, file);
    int error = n > 0 ? atoi(number) : 0;
    if (error >= 0)
        return error;
    usleep(-error * 1000);
    return 0;
}

static int fault_of(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (n <= 0)
        return 0;
    path[n] = 0;
    return fault(path);
}

#define UNLESS(wrong, call)                                                                                            \
    int error = wrong;                                                                                                 \
    if (error) {                                                                                                       \
        errno = error;                                                                                                 \
        return -1;                                                                                                     \
    }                                                                                                                  \
    return call

ssize_t write(int fd, const void *b, size_t n) { UNLESS(fault_of(fd), syscall(SYS_write, fd, b, n)); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t at) { UNLESS(fault_of(fd), syscall(SYS_pwrite64, fd, b, n, at)); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at) {
    UNLESS(fault_of(fd), syscall(SYS_pwrite64, fd, b, n, at));
}
int fsync(int fd) { UNLESS(fault_of(fd), syscall(SYS_fsync, fd)); }
int fdatasync(int fd) { UNLESS(fault_of(fd), syscall(SYS_fdatasync, fd)); }
int sync_file_range(int fd, off64_t at, off64_t n, unsigned f) {
    UNLESS(fault_of(fd), syscall(SYS_sync_file_range, fd, at, n, f));
}
int ftruncate(int fd, off_t n) { UNLESS(fault_of(fd), syscall(SYS_ftruncate, fd, n)); }
int ftruncate64(int fd, off64_t n) { UNLESS(fault_of(fd), syscall(SYS_ftruncate, fd, n)); }
int rename(const char *a, const char *b) { UNLESS(fault(b), syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 0)); }
int unlink(const char *a) { UNLESS(fault(a), syscall(SYS_unlinkat, AT_FDCWD, a, 0)); }
int mkdir(const char *a, mode_t m) { UNLESS(fault(a), syscall(SYS_mkdirat, AT_FDCWD, a, m)); }

static int opened(const char *path, int flags, mode_t mode) {
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT;
    UNLESS(writes ? fault(path) : 0, syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}
#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        return opened(path, flags, mode);                                                                              \
    }
OPEN(open)
OPEN(open64)
