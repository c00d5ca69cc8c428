//! An emulated link between two network namespaces, in user space: what a [`Case`] says happens to every packet.
//!
//! Each end is a TUN interface, `lab0`; one thread a direction takes packets and decides at once whether and when each arrives,
//! another hands them on when their time has come. Before [`Link::go`] the link only delays, so that servers and players can be
//! set up; then the clock of the case runs. A packet leaves when the capacity since the one before it has carried its bytes:
//! exact, no ticks. The queue takes no more at its limit (drop-tail).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::case::{Case, Side};
use super::place::Place;

/// Address of the player's end.
pub const PLAYER: &str = "10.77.0.2";
/// Address of the office's end: servers and name server.
pub const OFFICE: &str = "10.77.0.1";
/// The interface, in both places.
const INTERFACE: &str = "lab0";

/// A link that carries packets until it is dropped.
pub struct Link {
    shared: Arc<Shared>,
    ends: [Arc<Place>; 2],
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    case: Case,
    went: OnceLock<Instant>,
    over: AtomicBool,
    /// Bytes carried to the player, and from it, since it went.
    carried: [AtomicU64; 2],
}

impl Link {
    /// Joins the player's place and the office's; `seed` is that of loss and jitter.
    ///
    /// # Errors
    /// What the system refused.
    pub fn new(case: Case, player: &Arc<Place>, office: &Arc<Place>, seed: u64) -> Result<Self> {
        let ends = [player.clone(), office.clone()];
        let carried = [AtomicU64::new(0), AtomicU64::new(0)];
        let shared = Arc::new(Shared { case, went: OnceLock::new(), over: AtomicBool::new(false), carried });
        let device = |place: &Place, address: &str| -> Result<Arc<SyncDevice>> {
            let device = place.inside(|| DeviceBuilder::new().name(INTERFACE).mtu(1_500).build_sync())?;
            place.ip(&["addr", "add", &format!("{address}/24"), "dev", INTERFACE])?;
            place.ip(&["link", "set", INTERFACE, "up"])?;
            // Most servers of the world run cubic. A kernel without it keeps its own.
            let route = ["route", "replace", "10.77.0.0/24", "dev", INTERFACE, "src", address, "congctl", "cubic"];
            let _ = place.ip(&route);
            Ok(Arc::new(device.context("no TUN interface")?))
        };
        let [near, far] = [device(player, PLAYER)?, device(office, OFFICE)?];
        let mut threads = Vec::new();
        for (way, (from, to)) in [(far.clone(), near.clone()), (near, far)].into_iter().enumerate() {
            let (sender, packets) = mpsc::channel();
            let (taking, giving) = (shared.clone(), shared.clone());
            let chance = Chance(seed * 2 + 1 + way as u64);
            threads.push(std::thread::spawn(move || taking.take(way, chance, &from, &sender)));
            threads.push(std::thread::spawn(move || giving.give(way, &to, &packets)));
        }
        Ok(Self { shared, ends, threads })
    }

    /// Starts the clock of the case.
    pub fn go(&self) -> Instant {
        *self.shared.went.get_or_init(Instant::now)
    }

    /// Bytes carried towards the player since then, headers included.
    pub fn carried_down(&self) -> u64 {
        self.shared.carried[0].load(Ordering::Relaxed)
    }

    /// Takes the player's interface down, or up again.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn interface(&self, up: bool) -> Result<()> {
        self.ends[0].ip(&["link", "set", INTERFACE, if up { "up" } else { "down" }])
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for end in &self.ends {
            // Wakes who waits for a packet. An end that is gone wakes them too.
            let _ = end.ip(&["link", "del", INTERFACE]);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn now(&self) -> Option<f64> {
        self.went.get().map(|went| went.elapsed().as_secs_f64())
    }

    /// Takes packets of one way as they come, and lets those on that will arrive.
    fn take(&self, way: usize, chance: Chance, from: &SyncDevice, on: &mpsc::Sender<(Instant, Vec<u8>)>) {
        let mut road = Road::new(&self.case, way == 0, chance);
        let mut buffer = vec![0; 65_536];
        while !self.over.load(Ordering::Relaxed) {
            let Ok(length) = from.recv(&mut buffer) else {
                // The interface is down: it may come back.
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            let packet = &buffer[..length];
            let due = match self.went.get() {
                None => Some(Instant::now() + Duration::from_secs_f64(self.case.delay)),
                Some(went) => {
                    let arrives = road.offer(went.elapsed().as_secs_f64(), length, ports(packet));
                    arrives.map(|t| *went + Duration::from_secs_f64(t))
                }
            };
            if let Some(due) = due
                && on.send((due, packet.to_vec())).is_err()
            {
                return;
            }
        }
    }

    /// Hands packets on when they are due.
    fn give(&self, way: usize, to: &SyncDevice, packets: &mpsc::Receiver<(Instant, Vec<u8>)>) {
        for (due, packet) in packets {
            while let Some(wait) = due.checked_duration_since(Instant::now()).filter(|w| !w.is_zero()) {
                if self.over.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(wait.min(Duration::from_millis(200)));
            }
            // What is under way when everything is lost is lost too.
            let lost = self.now().is_some_and(|t| self.case.drops(t, ports(&packet)));
            if !lost && to.send(&packet).is_ok() && self.went.get().is_some() {
                self.carried[way].fetch_add(packet.len() as u64, Ordering::Relaxed);
            }
        }
    }
}

/// One direction: decides when a packet arrives. No clock, no device.
struct Road<'a> {
    case: &'a Case,
    side: &'a Side,
    chance: Chance,
    bad: bool,
    /// When what waits has left, and its length.
    waiting: VecDeque<(f64, usize)>,
    queued: usize,
    free: f64,
    last: f64,
}

impl<'a> Road<'a> {
    fn new(case: &'a Case, down: bool, chance: Chance) -> Self {
        let side = if down { &case.down } else { &case.up };
        Self { case, side, chance, bad: false, waiting: VecDeque::new(), queued: 0, free: 0.0, last: 0.0 }
    }

    /// When a packet that comes at `t` arrives at the other end; none: never.
    fn offer(&mut self, t: f64, length: usize, ports: [u16; 2]) -> Option<f64> {
        if self.case.drops(t, ports) || self.loses() {
            return None;
        }
        while let Some((_, length)) = self.waiting.pop_front_if(|(left, _)| *left <= t) {
            self.queued -= length;
        }
        let (begins, left) = self.carry(t.max(self.free), length as f64)?;
        if self.queued + length > self.case.queue || begins - t > self.case.patience {
            return None;
        }
        self.free = left;
        self.queued += length;
        self.waiting.push_back((left, length));
        self.last = self.last.max(left + self.case.delay + self.case.jitter * self.chance.next());
        Some(self.last)
    }

    fn loses(&mut self) -> bool {
        let burst = self.case.burst.is_some_and(|b| {
            let turns = self.chance.next() < if self.bad { b.recovers } else { b.worsens };
            self.bad ^= turns;
            self.bad && self.chance.next() < b.loss
        });
        let alone = self.chance.next() < self.side.loss;
        burst || alone
    }

    /// When the first byte and the last one are carried, of bytes whose turn comes at `t`; none: not within an hour.
    fn carry(&self, mut t: f64, mut left: f64) -> Option<(f64, f64)> {
        let (end, mut begins) = (t + 3_600.0, None);
        while t < end {
            let (rate, until) = self.case.rate(self.side, t);
            if rate > 0.0 {
                let begins = *begins.get_or_insert(t);
                if rate * (until - t) >= left {
                    return Some((begins, t + left / rate));
                }
                left -= rate * (until - t);
            }
            t = until;
        }
        None
    }
}

/// Numbers by chance, the same for the same seed (xorshift64*, Vigna 2016).
struct Chance(u64);

impl Chance {
    /// At least 0, below 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The TCP or UDP ports of an IPv4 packet (RFC 791); zeros for everything else, fragments too.
fn ports(packet: &[u8]) -> [u16; 2] {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let read = || {
        let (first, header) = (packet.first()? >> 4 == 4, usize::from(packet.first()? & 15) * 4);
        let whole = word(6)? & 0x1fff == 0 && matches!(packet.get(9)?, 6 | 17);
        (first && whole).then_some([word(header)?, word(header + 2)?])
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Bytes that arrive of packets of 500 bytes, `every` seconds one, and the last arrival.
    fn sent(case: &str, count: usize, every: f64) -> (usize, f64) {
        let case = Case::parse(case, Path::new("")).unwrap();
        let mut road = Road::new(&case, true, Chance(1));
        let arrived: Vec<f64> = (0..count).filter_map(|n| road.offer(n as f64 * every, 500, [9, 9])).collect();
        assert!(arrived.is_sorted(), "order is kept");
        (arrived.len() * 500, arrived.last().copied().unwrap_or(0.0))
    }

    #[test]
    fn a_full_link_carries_exactly_its_rate() {
        // 100 kbit/s are 12,500 bytes a second; 80 times as much is offered for 10 s, and 64 KiB wait at the end.
        let (bytes, last) = sent("down 100\nqueue 64\ndelay 50\n", 20_000, 0.0005);
        assert!((125_000 + 65_536 - bytes as i64).abs() < 1_500, "{bytes}");
        assert!((last - 0.05 - bytes as f64 / 12_500.0).abs() < 0.05, "{last}");
    }

    #[test]
    fn who_would_wait_too_long_is_lost_and_the_link_stays_busy() {
        let (bytes, last) = sent("down 100\nqueue 640 500\n", 20_000, 0.0005);
        assert!((131_000..=132_000).contains(&bytes) && last < 10.6, "{bytes} by {last}");
        // In a hold, only the last half second survives.
        let (bytes, last) = sent("down 800\nqueue 640 500\nat 0 5 hold\n", 50, 0.1);
        assert!((2_000..=3_000).contains(&bytes) && (5.0..5.1).contains(&last), "{bytes} by {last}");
    }

    #[test]
    fn loss_is_what_was_asked_for_and_bursts_come_together() {
        let (bytes, _) = sent("loss 0.05 0\n", 20_000, 0.01);
        assert!((0.945..0.955).contains(&(bytes as f64 / 1e7)), "{bytes}");
        // Bad for 1 / 0.2 = 5 packets of every 1 / 0.01 + 5 = 105: 4.8 % are lost.
        let (bytes, _) = sent("burst 0.01 0.2 1\n", 200_000, 0.01);
        assert!((0.947..0.958).contains(&(bytes as f64 / 1e8)), "{bytes}");
        let (bytes, _) = sent("at 10 20 drop\nat 50 10 port 9\nat 70 10 port 8\n", 1_000, 0.1);
        assert_eq!(bytes, 700 * 500);
    }
}
