//! Scheduling class of the audio thread: the only `unsafe` of the project.
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

#[cfg(test)]
mod tests {
    use super::*;

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
