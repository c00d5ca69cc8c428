//! From decoded frames to a device: the ring, the renderer, and which device is open at which rate.
//!
//! The renderer is either *out*, in a device's callback, or *home*, here; dropping the device brings it home with all that
//! was not heard. One thread owns the line and calls it; it never blocks but for opening and closing a device.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jukebox_board::output::{Content, Device, Fill, Health, Output, Timing};
use jukebox_core::sound::OutputState;

use super::feed::Feed;
use super::render::{FLUSH_MS, Renderer, STOP_MS};
use super::shared::{Bell, Controls};
use super::tape::Tape;
use super::{RateRule, Settings};

/// Between two tries to open a device.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks whether an open device still asks for frames.
pub(crate) const WATCH: Duration = Duration::from_millis(500);
/// How long a sink without a clock waits for frames before it asks whether it should end.
const PATIENCE: Duration = Duration::from_millis(30);

/// What the threads share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) controls: Arc<Controls>,
    /// Rung for the thread that owns the line: orders; room, by a sink without a clock.
    pub(crate) wake: Arc<Bell>,
    /// Rung for a sink without a clock: frames, wishes.
    pub(crate) fed: Arc<Bell>,
    /// Live radio, if a station is tuned in.
    pub(crate) tape: Arc<Mutex<Option<Arc<Tape>>>>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        let (wake, fed, tape) = (Arc::default(), Arc::default(), Arc::default());
        Self { controls: Arc::new(Controls::new()), wake, fed, tape }
    }

    pub(crate) fn tape(&self) -> Option<Arc<Tape>> {
        self.tape.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(crate) struct Line {
    settings: Settings,
    shared: Shared,
    report: Box<dyn Fn(OutputState) + Send>,
    /// Made with the first device.
    pub(crate) feed: Option<Feed>,
    home: Option<Renderer>,
    doors: (SyncSender<Renderer>, Receiver<Renderer>),
    output: Option<Output>,
    /// Rate that is waited for; `None`: no device is wanted.
    wanted: Option<u32>,
    retry: Instant,
    /// Told to be missing.
    missing: bool,
}

impl Line {
    pub(crate) fn new(settings: Settings, shared: Shared, report: impl Fn(OutputState) + Send + 'static) -> Self {
        Self {
            settings,
            shared,
            report: Box::new(report),
            feed: None,
            home: None,
            doors: sync_channel(1),
            output: None,
            wanted: None,
            retry: Instant::now(),
            missing: false,
        }
    }

    /// Asks for a device fit for music of `rate`; whether it is open and the next track may be put. Until then what is in
    /// the ring plays to its end, if the rate has to change.
    pub(crate) fn is_fit(&mut self, rate: u32) -> bool {
        let fits = self.suits(rate);
        let rate = self.rate_for(rate);
        if self.output.is_some() {
            if fits {
                self.wanted = Some(rate);
                return true;
            }
            self.finish();
            if !self.is_drained() {
                return false;
            }
            self.close();
        }
        // Frames that are waiting for a device come first, at their rate.
        let undrained = self.feed.as_ref().filter(|_| !self.is_drained()).map(Feed::rate);
        self.wanted = Some(undrained.unwrap_or(rate));
        self.tick();
        undrained.is_none() && self.output.is_some()
    }

    /// Whether a device is open that music of `rate` needs no other one for.
    pub(crate) fn suits(&self, rate: u32) -> bool {
        self.output.as_ref().is_some_and(|o| o.nearest(self.rate_for(rate)) == o.rate())
    }

    const fn rate_for(&self, rate: u32) -> u32 {
        match self.settings.rate {
            RateRule::Follow => rate,
            RateRule::Fixed(fixed) => fixed,
        }
    }

    /// Looks after the device: opens it if one is wanted, lets go of one that stopped asking.
    pub(crate) fn tick(&mut self) {
        if let Some(output) = &self.output {
            let why = match output.health() {
                Health::Fine => return,
                Health::Gone => "it was pulled out",
                Health::Mute => "it stopped asking for sound",
            };
            let wanted = self.wanted.or(Some(output.rate()));
            self.close();
            self.wanted = wanted;
            self.retry = Instant::now();
            self.say_missing(why);
        }
        if let Some(rate) = self.wanted
            && Instant::now() >= self.retry
        {
            let rate = self.feed.as_ref().filter(|_| !self.is_drained()).map_or(rate, Feed::rate);
            self.open(rate);
        }
    }

    /// Whether frames can be put.
    pub(crate) const fn is_open(&self) -> bool {
        self.output.is_some()
    }

    /// Whether all that was put has left the DAC.
    pub(crate) fn is_drained(&self) -> bool {
        let controls = &self.shared.controls;
        let clear = self.feed.as_ref().is_none_or(|f| f.is_clear() && !f.owes() && !f.is_crossing());
        clear && controls.snapshot.read().released.max(controls.flush.load(Acquire)) >= controls.pushed.load(Acquire)
    }

    /// Nothing follows without a seam.
    pub(crate) fn finish(&mut self) {
        if let Some(feed) = &mut self.feed {
            feed.finish();
        }
    }

    /// Moves staged frames into the ring; whether any moved.
    pub(crate) fn pump(&mut self, brim: bool) -> bool {
        let moved = self.feed.as_mut().is_some_and(|f| f.pump(brim));
        if moved {
            self.shared.fed.ring();
        }
        moved
    }

    /// Drops the old frames, if a flush waits.
    pub(crate) fn flush(&mut self) {
        let Some(point) = self.feed.as_mut().and_then(Feed::end_flush) else { return };
        self.shared.controls.flush.fetch_max(point, std::sync::atomic::Ordering::AcqRel);
        if let Some(renderer) = &mut self.home {
            renderer.drop_flushed();
        }
        self.shared.fed.ring();
    }

    /// Wants a device for what is in the ring.
    pub(crate) fn want_again(&mut self) {
        if self.output.is_none() && !self.is_drained() {
            self.wanted = self.wanted.or(self.feed.as_ref().map(Feed::rate));
        }
    }

    /// Closes the device; what was not heard stays, but for what a flush is about to drop: nobody hears it any more.
    pub(crate) fn close(&mut self) {
        self.flush();
        self.wanted = None;
        self.missing = false;
        let Some(output) = self.output.take() else { return };
        self.shared.controls.xruns.fetch_add(output.xruns(), Relaxed);
        drop(output); // waits for the last callback
        self.home = self.doors.1.try_recv().ok();
        if let Some(renderer) = &mut self.home {
            renderer.rewind();
            renderer.drop_flushed();
        }
    }

    /// Closes the device and wants it again at once.
    pub(crate) fn reopen(&mut self) {
        let Some(rate) = self.output.as_ref().map(Output::rate) else { return };
        self.close();
        self.wanted = Some(rate);
        self.retry = Instant::now();
    }

    /// The period is to be at least so long; a device that is open is opened anew for it.
    pub(crate) fn lengthen_period(&mut self, ms: u32) {
        self.settings.lengthen_period(ms);
        if self.output.as_ref().is_some_and(|output| period_ms_of(output) < ms) {
            self.reopen();
        }
    }

    /// Closes the device on purpose, and says so.
    pub(crate) fn shut(&mut self) {
        let was = self.output.is_some() || self.missing;
        self.close();
        if was {
            (self.report)(OutputState::Closed);
        }
    }

    /// Fades out and closes.
    pub(crate) fn end(&mut self) {
        if let Some(output) = &self.output {
            self.shared.controls.stopping.store(true, Relaxed);
            self.shared.fed.ring();
            let periods = u64::from(output.period()) * 3_000 / u64::from(output.rate());
            std::thread::sleep(Duration::from_millis(u64::from(STOP_MS) + periods));
        }
        self.close();
    }

    fn open(&mut self, rate: u32) {
        self.retry = Instant::now() + RETRY;
        let devices = self.settings.outputs.clone();
        let mut why = String::from("no output is configured: name one in `outputs`");
        for (i, device) in devices.iter().enumerate() {
            let period_ms = self.settings.period_ms;
            match Output::open(device, rate, period_ms, |actual| self.fill(device, actual)) {
                Ok(output) => {
                    let state = OutputState::Open {
                        name: device.to_string().into(),
                        rate: output.rate(),
                        period_ms: period_ms_of(&output),
                    };
                    self.output = Some(output);
                    self.missing = false;
                    (self.report)(state);
                    return;
                }
                Err(e) => {
                    self.home = self.home.take().or_else(|| self.doors.1.try_recv().ok());
                    why = if i == 0 { e.to_string() } else { format!("{why}; {e}") };
                }
            }
        }
        self.say_missing(&why);
    }

    fn say_missing(&mut self, why: &str) {
        if !std::mem::replace(&mut self.missing, true) {
            (self.report)(OutputState::Missing { why: why.into() });
        }
    }

    /// What a device asks: the renderer, with a ring of the right rate.
    fn fill(&mut self, device: &Device, rate: u32) -> Fill {
        let controls = self.shared.controls.clone();
        let old = self.home.take().zip(self.feed.take());
        let renderer = match old {
            Some((renderer, feed)) if feed.rate() == rate => {
                self.feed = Some(feed);
                renderer
            }
            old => {
                let (mut feed, (frames, markers)) = Feed::new(rate, controls.clone());
                let rise_ms = match old {
                    None => self.settings.start_ramp_ms,
                    // A track begins: not a sample of it is faded.
                    Some((renderer, old)) => {
                        if feed.carry(old, renderer.into_unheard()) {
                            FLUSH_MS
                        } else {
                            0
                        }
                    }
                };
                self.feed = Some(feed);
                Renderer::new(frames, markers, controls, rate, rise_ms)
            }
        };
        let mut loan = Loan { renderer: Some(renderer), home: self.doors.0.clone() };
        if device.is_paced() {
            return Box::new(move |out, timing| Some(loan.fill(out, timing)));
        }
        let shared = self.shared.clone();
        Box::new(move |out, timing| {
            let renderer = loan.renderer.as_mut()?;
            let frames = (out.len() / 2) as u64;
            let seen = shared.fed.rung();
            if !renderer.is_due(frames, true) {
                let rung = shared.fed.wait(seen, PATIENCE);
                if !renderer.is_due(frames, rung) {
                    return None;
                }
            }
            let content = renderer.fill(out, timing);
            shared.wake.ring();
            Some(content)
        })
    }
}

fn period_ms_of(output: &Output) -> u32 {
    output.period() * 1_000 / output.rate().max(1)
}

/// The renderer while it is out; goes home when the device lets go of it.
struct Loan {
    renderer: Option<Renderer>,
    home: SyncSender<Renderer>,
}

impl Loan {
    fn fill(&mut self, out: &mut [f32], timing: Timing) -> Content {
        self.renderer.as_mut().map_or(Content::Integer(1), |r| r.fill(out, timing))
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(renderer) = self.renderer.take() {
            let _ = self.home.try_send(renderer); // nobody is there at the very end
        }
    }
}
