//! A process whose clock is wrong, and whose kernel knows that nobody keeps it.

use std::path::Path;
use std::process::Command;

use super::{run, write};

/// Stands before libc: the wall clock is off, adjtimex(2) says so, and timesyncd's mark is not there. Clocks that never step
/// are left alone.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(id, t);
    if (answer == 0 && id == CLOCK_REALTIME) t->tv_sec += atoll(getenv("CLOCK_OFF_S"));
    return answer;
}

int adjtimex(struct timex *t) {
    t->status = STA_UNSYNC;
    return TIME_ERROR;
}

int statx(int dir, const char *path, int flags, unsigned mask, struct statx *s) {
    static int (*real)(int, const char *, int, unsigned, struct statx *);
    if (path && !strcmp(path, "/run/systemd/timesync/synchronized")) {
        errno = ENOENT;
        return -1;
    }
    if (!real) real = dlsym(RTLD_NEXT, "statx");
    return real(dir, path, flags, mask, s);
}
"#;

/// Makes the clock that `command` will see wrong by `off_s` seconds; files of it lie in `folder`.
///
/// # Panics
/// When there is no C compiler.
pub fn put_off(command: &mut Command, folder: &Path, off_s: i64) {
    let (source, shim) = (folder.join("clock.c"), folder.join("clock.so"));
    if !shim.exists() {
        write(&source, SHIM);
        run(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).arg("-ldl"));
    }
    command.env("LD_PRELOAD", shim).env("CLOCK_OFF_S", off_s.to_string());
}
