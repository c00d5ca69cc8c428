//! What has come of a station and waits for its turn: encoded packets, bounded in time and in bytes.
//!
//! *Run*: packets of one connection and one set of codec parameters. Another connection is another run: the one before plays
//! to its end, then the new one from its edge on. A full tape takes nothing more; whoever fills it hangs up. If it became full in
//! a pause, what comes after the pause is the edge: what is on it would be followed by a hole.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jukebox_core::sound::EntryId;
use symphonia::core::codecs::audio::AudioCodecParameters;

use super::shared::Bell;

/// Runs kept: the one that plays, the one after it, and its successor that is not known to be good yet.
const RUNS: usize = 3;
/// Nothing was taken for so long: there is a pause.
const PAUSE: Duration = Duration::from_secs(2);

/// An encoded packet, and how many frames it decodes to.
#[derive(Debug)]
pub struct Packet {
    /// As the codec takes it.
    pub data: Box<[u8]>,
    /// At the run's rate.
    pub frames: u64,
}

/// What a decoder for a run is made from.
#[derive(Clone, Debug)]
pub struct Form {
    /// Codec, rate, channels, headers.
    pub parameters: AudioCodecParameters,
    /// Frames a second.
    pub rate: u32,
}

/// The next packet for the decoder.
pub(crate) struct Next {
    pub(crate) packet: Packet,
    /// A run begins with it.
    pub(crate) fresh: Option<Form>,
    /// Nothing of its run comes after it.
    pub(crate) last: bool,
}

/// The tape of one tuning.
pub struct Tape {
    entry: EntryId,
    most: Duration,
    most_bytes: usize,
    runs: Mutex<Runs>,
    /// The decoder waits for a packet.
    hungry: AtomicBool,
    bell: Mutex<Option<Arc<Bell>>>,
}

#[derive(Default)]
struct Runs {
    line: VecDeque<Run>,
    /// Runs ever begun; the last one's number.
    begun: u64,
    bytes: usize,
    /// When the last packet was taken.
    taken: Option<Instant>,
    /// It became full in a pause.
    stale: bool,
}

struct Run {
    number: u64,
    form: Form,
    packets: VecDeque<Packet>,
    frames: u64,
    /// Its first packet was taken.
    taken: bool,
    ended: bool,
}

impl Run {
    fn level(&self) -> Duration {
        Duration::from_micros(self.frames * 1_000_000 / u64::from(self.form.rate.max(1)))
    }
}

impl Tape {
    /// An empty one for what is played for `entry`, of at most so much time and memory.
    pub fn new(entry: EntryId, most: Duration, most_bytes: usize) -> Arc<Self> {
        let (runs, bell) = (Mutex::default(), Mutex::default());
        Arc::new(Self { entry, most, most_bytes, runs, hungry: AtomicBool::new(false), bell })
    }

    /// What it is played for.
    pub const fn entry(&self) -> EntryId {
        self.entry
    }

    /// Begins a run; its number. `follows`: it goes on where the one before ended, of the same connection.
    pub fn begin(&self, form: Form, follows: bool) -> u64 {
        let mut runs = self.lock();
        runs.begun += 1;
        if let Some(before) = runs.line.back_mut() {
            before.ended = true;
        }
        // What never sounded and is of another connection is of no use: it was earlier.
        runs.line.retain(|r| (follows || r.taken) && r.frames > 0);
        while runs.line.len() >= RUNS {
            runs.line.pop_front();
        }
        let number = runs.begun;
        runs.line.push_back(Run { number, form, packets: VecDeque::new(), frames: 0, taken: false, ended: false });
        runs.count();
        number
    }

    /// Puts the next packet of a run. False: the tape is full, or the run has a successor.
    pub fn put(&self, run: u64, packet: Packet) -> bool {
        let mut runs = self.lock();
        let full = runs.level() >= self.most || runs.bytes + packet.data.len() > self.most_bytes;
        runs.stale |= full && runs.taken.is_some_and(|t| t.elapsed() >= PAUSE);
        let Some(last) = runs.line.back_mut().filter(|r| r.number == run && !full) else { return false };
        last.frames += packet.frames;
        let bytes = packet.data.len();
        last.packets.push_back(packet);
        runs.bytes += bytes;
        drop(runs);
        if self.hungry.swap(false, AcqRel)
            && let Some(bell) = &*self.bell.lock().unwrap_or_else(PoisonError::into_inner)
        {
            bell.ring();
        }
        true
    }

    /// Nothing more comes of a run.
    pub fn end(&self, run: u64) {
        if let Some(run) = self.lock().line.iter_mut().find(|r| r.number == run) {
            run.ended = true;
        }
    }

    /// How long what is here plays.
    pub fn level(&self) -> Duration {
        self.lock().level()
    }

    /// How long what is here of a run plays.
    pub fn level_of(&self, run: u64) -> Duration {
        self.lock().line.iter().find(|r| r.number == run).map_or(Duration::ZERO, Run::level)
    }

    /// Rung when a packet comes that the decoder waits for.
    pub(crate) fn wakes(&self, bell: &Arc<Bell>) {
        *self.bell.lock().unwrap_or_else(PoisonError::into_inner) = Some(bell.clone());
    }

    /// Goes to the edge: the newest run that has anything, and of that no more than `most`. Its rate.
    pub(crate) fn go_to_edge(&self, most: Duration) -> Option<u32> {
        let mut runs = self.lock();
        (runs.taken, runs.stale) = (None, false);
        let at = runs.line.iter().rposition(|r| r.frames > 0)?;
        runs.line.drain(..at);
        let run = runs.line.front_mut()?;
        run.taken = false;
        while run.level() > most
            && let Some(packet) = run.packets.pop_front()
        {
            run.frames -= packet.frames;
        }
        let rate = run.form.rate;
        runs.count();
        Some(rate)
    }

    /// The next packet, if one is here.
    pub(crate) fn next(&self) -> Option<Next> {
        let mut runs = self.lock();
        if std::mem::take(&mut runs.stale) {
            runs.line.truncate(1);
            for run in &mut runs.line {
                // One more, to fade out in.
                run.packets.truncate(1);
                (run.frames, run.ended) = (run.packets.iter().map(|p| p.frames).sum(), true);
            }
            runs.count();
        }
        runs.taken = Some(Instant::now());
        loop {
            let only = runs.line.len() == 1;
            let Some(run) = runs.line.front_mut() else { break };
            if let Some(packet) = run.packets.pop_front() {
                run.frames -= packet.frames.min(run.frames);
                let fresh = (!std::mem::replace(&mut run.taken, true)).then(|| run.form.clone());
                let last = run.ended && run.packets.is_empty();
                runs.bytes -= packet.data.len().min(runs.bytes);
                return Some(Next { packet, fresh, last });
            }
            if only || !run.ended {
                break;
            }
            runs.line.pop_front();
        }
        self.hungry.store(true, std::sync::atomic::Ordering::Release);
        None
    }

    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runs {
    fn level(&self) -> Duration {
        self.line.iter().map(Run::level).sum()
    }

    fn count(&mut self) {
        self.bytes = self.line.iter().flat_map(|r| &r.packets).map(|p| p.data.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form() -> Form {
        Form { parameters: AudioCodecParameters::new(), rate: 1_000 }
    }

    fn packet(n: u8) -> Packet {
        Packet { data: Box::new([n; 10]), frames: 100 }
    }

    fn played(tape: &Tape) -> Vec<(u8, bool, bool)> {
        std::iter::from_fn(|| tape.next()).map(|n| (n.packet.data[0], n.fresh.is_some(), n.last)).collect()
    }

    #[test]
    fn runs_follow_each_other_and_the_edge_is_the_newest() {
        let tape = Tape::new(EntryId(1), Duration::from_secs(60), 1 << 20);
        let a = tape.begin(form(), false);
        (0..20).for_each(|n| assert!(tape.put(a, packet(n))));
        assert_eq!(tape.level(), Duration::from_secs(2));
        assert_eq!(tape.go_to_edge(Duration::from_millis(500)), Some(1_000));
        assert_eq!(
            played(&tape),
            [(15, true, false), (16, false, false), (17, false, false), (18, false, false), (19, false, false)]
        );
        assert!(tape.put(a, packet(20)));
        assert_eq!(tape.next().map(|n| n.packet.data[0]), Some(20));
        assert!(tape.put(a, packet(21)));
        let b = tape.begin(form(), false);
        assert!(!tape.put(a, packet(99)), "it has a successor");
        assert!(tape.put(b, packet(30)) && tape.put(b, packet(31)));
        tape.end(b);
        assert_eq!(played(&tape), [(21, false, true), (30, true, false), (31, false, true)]);
        let c = tape.begin(form(), false);
        assert!(tape.put(c, packet(40)));
        let d = tape.begin(form(), false);
        assert!(tape.put(d, packet(50)));
        assert_eq!(played(&tape), [(50, true, false)], "what never began is of no use beside its successor");
        assert_eq!(tape.level(), Duration::ZERO);
    }

    #[test]
    fn it_is_bounded_in_time_and_in_bytes() {
        for (most, bytes) in [(Duration::from_secs(1), 1 << 20), (Duration::from_secs(60), 100)] {
            let tape = Tape::new(EntryId(1), most, bytes);
            let run = tape.begin(form(), false);
            assert_eq!((0..100).filter(|&n| tape.put(run, packet(n))).count(), 10);
            assert!(!tape.put(run, packet(10)), "it is full");
            assert_eq!(played(&tape).len(), 10);
            assert!(tape.put(run, packet(0)), "there is room again");
        }
    }

    #[test]
    fn what_became_full_in_a_pause_is_of_no_use() {
        let tape = Tape::new(EntryId(1), Duration::from_secs(1), 1 << 20);
        let run = tape.begin(form(), false);
        (0..5).for_each(|n| assert!(tape.put(run, packet(n))));
        assert_eq!(played(&tape).len(), 5);
        tape.lock().taken = Instant::now().checked_sub(PAUSE);
        assert_eq!((0..100).filter(|&n| tape.put(run, packet(n))).count(), 10);
        assert_eq!((played(&tape), tape.level()), (vec![(0, false, true)], Duration::ZERO));
        let next = tape.begin(form(), false);
        assert!(tape.put(next, packet(50)));
        assert_eq!(played(&tape), [(50, true, false)], "the edge");
    }
}
