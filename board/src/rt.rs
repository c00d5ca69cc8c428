//! Scheduling class of the audio thread, thrift with memory, whether the clock is kept: the only `unsafe` of the project.
//!
//! SCHED_FIFO runs a thread before every ordinary one, so that a busy machine cannot make it miss a period. It is asked
//! for on real hardware only: a PCM that is always ready (`null`) would spin and stop the machine.

use std::io;

/// Above ordinary threads, below the kernel's own interrupt threads (50).
const PRIORITY: libc::c_int = 20;

/// Gives the calling thread SCHED_FIFO; threads it starts do not inherit it.
///
/// # Errors
/// `PermissionDenied` without CAP_SYS_NICE or a limit on RTPRIO (`LimitRTPRIO=` in a unit): play on without.
pub fn fifo() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the structure outlives the call, which reads it and touches no other memory of ours; 0 is the calling thread.
    let answer =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameter) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether [`fifo`] would be granted, tried in a thread that ends at once.
pub fn may_fifo() -> bool {
    let tried = std::thread::Builder::new().stack_size(64 << 10).spawn(|| fifo().is_ok());
    tried.is_ok_and(|t| t.join().unwrap_or(false))
}

/// Makes glibc's heap keep less of what is freed: segments of half a megabyte come and go, and what it keeps by default is
/// more than all that lives. To be called before threads are started; without glibc it does nothing.
pub fn thrifty() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [
        // Fixed, because it grows to the largest block that was ever freed, and blocks below it are kept.
        (libc::M_MMAP_THRESHOLD, 64 << 10),
        (libc::M_TRIM_THRESHOLD, 64 << 10),
        (libc::M_TOP_PAD, 16 << 10),
        (libc::M_ARENA_MAX, 1),
    ] {
        // SAFETY: takes two integers and sets numbers of the allocator.
        unsafe { libc::mallopt(what, value) };
    }
}

/// Gives back to the system what the heap holds between blocks in use. Takes about a millisecond, in which others that want
/// memory wait; the audio callback wants none. Without glibc it does nothing.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the allocator's own function, under its own lock; what is in use stays where it is.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Whether somebody (timesyncd, chrony, ntpd) keeps the system's clock right: they tell the kernel, and it says so until they
/// have been gone for too long (adjtimex(2), STA_UNSYNC). None where it may not be asked.
pub fn clock_is_kept() -> Option<bool> {
    // SAFETY: a structure of integers, for which zero is a value; without a mode it only asks.
    let mut time: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is ours and outlives the call, which fills it.
    let state = unsafe { libc::adjtimex(&raw mut time) };
    (state >= 0).then_some(state != libc::TIME_ERROR && time.status & libc::STA_UNSYNC == 0)
}

/// The program's and its libraries' read-only mappings, whose pages the page cache holds anyway.
///
/// The kernel maps sixteen pages around each one that is touched, and they stay: after a while nearly all of the program
/// counts as ours, though little of it runs.
#[derive(Debug)]
pub struct CleanPages(Vec<(usize, usize)>);

impl CleanPages {
    /// Finds them. To be called when all libraries are loaded.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn find() -> io::Result<Self> {
        Ok(Self(clean_program(&std::fs::read_to_string("/proc/self/smaps")?)))
    }

    /// Unmaps them; what is still in use comes back from the page cache when it is touched (microseconds, no reading).
    pub fn forget(&self) {
        for &(start, length) in &self.0 {
            // SAFETY: a private mapping of a file, not writable and without a page of its own (`Anonymous: 0`), so it
            // never has one: every byte of it is the file's, and reads the same after the kernel has mapped it again.
            unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
        }
    }
}

/// Address and length of the mappings in the text of `smaps` (proc(5)) that are a file's, read-only and untouched.
fn clean_program(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut last = None;
    for line in smaps.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            // address, rights, offset, device, inode, path
            [range, rights, _, _, inode, ..] if range.contains('-') && !range.ends_with(':') => {
                let bounds = range.split_once('-');
                let number = |s| usize::from_str_radix(s, 16).ok();
                last = bounds
                    .and_then(|(a, b)| Some((number(a)?, number(b)?)))
                    .filter(|_| rights.starts_with("r-") && rights.ends_with('p') && inode != "0");
            }
            ["Anonymous:", "0", "kB"] => found.extend(last.take().map(|(a, b)| (a, b - a))),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_is_freed_between_blocks_in_use_is_given_back() {
        let anonymous = || {
            let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
            let line = text.lines().find_map(|l| l.strip_prefix("Anonymous:")).unwrap();
            line.trim_end_matches("kB").trim().parse::<u64>().unwrap()
        };
        thrifty();
        let mut blocks: Vec<_> = (0..2_000).map(|n| Some(vec![n as u8; 16 << 10])).collect();
        // What stays in use pins the heap's end.
        blocks.iter_mut().enumerate().filter(|(n, _)| n % 100 != 99).for_each(|(_, b)| *b = None);
        let before = anonymous();
        trim();
        assert!(anonymous() + 20_000 < before, "{before} kB, then {}", anonymous());
        assert!(blocks.iter().flatten().count() == 20);
    }

    #[test]
    fn only_clean_pages_of_files_are_forgotten() {
        let smaps = "\
            5500-5600 r--p 00000000 fe:00 12 /usr/bin/jukebox\nRss: 4 kB\nAnonymous:             0 kB\n\
            5600-5700 r--p 00002000 fe:00 12 /usr/bin/jukebox\nAnonymous:             8 kB\n\
            5700-5800 rw-p 00003000 fe:00 12 /usr/bin/jukebox\nAnonymous:             0 kB\n\
            5800-5900 r-xp 00000000 00:00 0\nAnonymous:             0 kB\n\
            5900-5a80 r-xp 00004000 fe:00 12 /lib/libc.so.6\nAnonymous:             0 kB\n";
        assert_eq!(clean_program(smaps), [(0x5500, 0x100), (0x5900, 0x180)]);
    }

    #[test]
    fn what_is_forgotten_works_on() {
        let pages = CleanPages::find().unwrap();
        assert!(pages.0.len() > 2, "this program and its libraries");
        let threads: Vec<_> =
            (0..4).map(|n| std::thread::spawn(move || (0..200).map(|k| format!("{n} {k}")).collect())).collect();
        for _ in 0..20 {
            pages.forget();
        }
        for (n, thread) in threads.into_iter().enumerate() {
            let told: Vec<String> = thread.join().unwrap();
            assert!(told.iter().enumerate().all(|(k, t)| *t == format!("{n} {k}")));
        }
    }

    #[test]
    fn asking_in_advance_and_asking_agree_and_leave_this_thread_alone() {
        let allowed = may_fifo();
        let asked = std::thread::spawn(|| fifo().is_ok()).join().unwrap();
        assert_eq!(allowed, asked);
        let own = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let policy = own.rsplit(')').next().unwrap().split_whitespace().nth(38).unwrap().to_owned();
        assert_eq!(policy, "0", "SCHED_OTHER");
    }
}
