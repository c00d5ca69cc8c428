//! When the driver is due: a timer of the kernel's.
//!
//! The runtime's own timers go off in two steps when they are further away than 64 ms, and setting one wakes the runtime
//! once more; a player that plays does little else than being woken.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use tokio::io::unix::AsyncFd;

/// Rings once each time that it is set.
pub(super) struct Alarm {
    timer: AsyncFd<OwnedFd>,
    at: Option<Instant>,
}

impl Alarm {
    /// One that is not set. Needs a runtime.
    ///
    /// # Errors
    /// The system gives no timer.
    pub(super) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(deprecated, reason = "its successor asks for a promise that an OwnedFd keeps by itself")]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer, at: None })
    }

    /// Is to ring at `at`, and no more when it was to ring before.
    pub(super) fn set(&mut self, at: Instant) -> io::Result<()> {
        if self.at != Some(at) {
            // Zero would be never.
            let wait = at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
            let it_value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
            let once = Itimerspec { it_interval: Timespec::default(), it_value };
            timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            self.at = Some(at);
        }
        Ok(())
    }

    /// Until it rings. May be dropped: what has rung meanwhile is not lost.
    pub(super) async fn rings(&mut self) {
        while let Ok(mut ready) = self.timer.readable().await {
            if ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?)).is_ok() {
                self.at = None;
                return;
            }
        }
        pending().await // the runtime is at its end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_rings_once_when_it_was_set_to_last() {
        let mut alarm = Alarm::new().unwrap();
        let began = Instant::now();
        alarm.set(began + Duration::from_secs(3_600)).unwrap();
        alarm.set(began + Duration::from_millis(80)).unwrap();
        alarm.rings().await;
        assert!(began.elapsed() >= Duration::from_millis(80));
        let again = tokio::time::timeout(Duration::from_millis(50), alarm.rings()).await;
        assert!(again.is_err(), "it was not set again");
    }

    #[tokio::test]
    async fn what_rang_while_nobody_listened_is_not_lost_but_void_when_it_is_set_anew() {
        let mut alarm = Alarm::new().unwrap();
        let past = Instant::now();
        alarm.set(past).unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(60), alarm.rings()).await.is_ok());
        alarm.set(past).unwrap();
        drop(alarm.timer.readable().await.unwrap());
        alarm.set(past + Duration::from_secs(3_600)).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), alarm.rings()).await.is_err());
    }
}
