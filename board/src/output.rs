//! The one file that knows cpal: opens a device, asks `fill` for frames, and tells how many frames have left the DAC.
//!
//! *Device*: a named ALSA PCM, or a virtual DAC ([`crate::virt`]); nothing above can tell them apart. *Period*: the frames
//! asked for at once; two of them are the whole buffer. *Left*: frames that have left the DAC, of those handed over since
//! the device was opened. *Epoch*: a run of the PCM between two errors. The law: the audio thread allocates, locks and logs
//! nothing after its first call; the error callback counts and flags.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{BufferSize, DeviceId, ErrorKind, HostId, I24, SampleFormat, StreamConfig, SupportedBufferSize};

use crate::dither::{self, Quantizer};
use crate::rt;
use crate::virt::{self, Dac};

/// Period with SCHED_FIFO, in milliseconds.
const PERIOD_FIFO_MS: u32 = 20;
/// Period without, in milliseconds.
const PERIOD_MS: u32 = 50;
/// A device that asks for nothing for this long has fallen mute, though no error told.
const MUTE: Duration = Duration::from_secs(1);

/// Fills a buffer of interleaved stereo; says what is in it. `None`: nothing is due yet. Only a virtual DAC without a clock
/// of its own heeds that; every other plays the buffer as it is.
pub type Fill = Box<dyn FnMut(&mut [f32], Timing) -> Option<Content> + Send>;

/// What a buffer holds: decides about dither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// Every sample is an integer of so many bits, divided by 2^(bits - 1): bit-exact if the device takes as many.
    Integer(u8),
    /// Anything else.
    Float,
}

/// When a buffer is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Frames that have left the DAC, of those handed over since the device was opened.
    pub left: u64,
    /// Errors so far. Where it changed, the buffer before this one may never have reached the device.
    pub epoch: u32,
    /// Now.
    pub at: Instant,
}

/// Where sound can go.
#[derive(Clone)]
pub enum Device {
    /// An ALSA PCM by name: `hw:CARD=...,DEV=0`, `plughw:...`, `default`.
    Alsa(Arc<str>),
    /// A virtual DAC: `paced`, `paced:FILE.wav`, `unpaced:FILE.wav`.
    Virtual(Dac),
}

impl Device {
    /// Whether it has a clock of its own. If not, `fill` may wait.
    pub fn is_paced(&self) -> bool {
        match self {
            Self::Alsa(_) => true,
            Self::Virtual(dac) => dac.is_paced(),
        }
    }
}

impl FromStr for Device {
    type Err = OpenError;
    fn from_str(name: &str) -> Result<Self, OpenError> {
        Ok(Dac::named(name)?.map_or_else(|| Self::Alsa(name.into()), Self::Virtual))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alsa(name) => f.write_str(name),
            Self::Virtual(dac) => f.write_str(dac.name()),
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({self})")
    }
}

/// Why a device does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No such PCM.
    #[error("output `{name}` is not there; there are: {there}")]
    NotThere {
        /// As configured.
        name: String,
        /// Names that exist.
        there: String,
    },
    /// Used by another program.
    #[error("output `{0}` is used by another program: stop that, or name another output")]
    Busy(String),
    /// It cannot play stereo in a sample format of ours.
    #[error("output `{name}` does not take {what}; try `plug{name}`")]
    Unfit {
        /// As configured.
        name: String,
        /// What was asked for.
        what: &'static str,
    },
    /// A virtual DAC's name that makes no sense.
    #[error("output `{0}`: should be `paced`, `paced:FILE.wav` or `paced:s16|s24|s32|f32:FILE.wav` (or `unpaced...`)")]
    Name(String),
    /// Anything else that the system said.
    #[error("output `{name}`: {why}")]
    System {
        /// As configured.
        name: String,
        /// What it said.
        why: String,
    },
}

/// Whether a device still asks for frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Fine,
    /// The system said that it is gone.
    Gone,
    /// It has not asked for a second, and nobody said why.
    Mute,
}

/// An open device that asks for frames until it is dropped. The drop waits for the last call of `fill` and drops it.
pub struct Output {
    _stream: Stream,
    rate: u32,
    period: u32,
    takes: Vec<(u32, u32)>,
    meter: Arc<Meter>,
}

/// Held for its drop, which ends the audio thread.
enum Stream {
    Alsa(#[allow(dead_code)] cpal::Stream),
    Virtual(#[allow(dead_code)] virt::Run),
}

impl Output {
    /// Opens `device` at the rate nearest to `rate` that it takes and starts asking the `Fill` that is made for that rate.
    /// Without `period_ms`: 20 ms where SCHED_FIFO is granted, else 50 ms.
    ///
    /// # Errors
    /// One line that names the device and what to do.
    pub fn open(
        device: &Device,
        rate: u32,
        period_ms: Option<u32>,
        make: impl FnOnce(u32) -> Fill,
    ) -> Result<Self, OpenError> {
        match device {
            Device::Alsa(name) => open_alsa(name, rate, period_ms, make),
            Device::Virtual(dac) => {
                let meter = Arc::new(Meter::new());
                let (run, rate, period) = dac.open(rate, period_ms.unwrap_or(PERIOD_FIFO_MS), make, meter.clone())?;
                Ok(Self { _stream: Stream::Virtual(run), rate, period, takes: dac.takes().to_vec(), meter })
            }
        }
    }

    /// Frames a second.
    pub const fn rate(&self) -> u32 {
        self.rate
    }

    /// Frames asked for at once.
    pub const fn period(&self) -> u32 {
        self.period
    }

    /// The rate that the device would be opened at for `rate`.
    pub fn nearest(&self, rate: u32) -> u32 {
        nearest(&self.takes, rate)
    }

    /// Errors since it was opened.
    pub fn xruns(&self) -> u32 {
        self.meter.epoch.load(Relaxed)
    }

    /// Whether it still asks for frames.
    pub fn health(&self) -> Health {
        self.meter.health()
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output({} Hz, period {})", self.rate, self.period)
    }
}

/// What the audio thread tells the others.
#[derive(Debug)]
pub(crate) struct Meter {
    born: Instant,
    /// Milliseconds from `born` to the last call.
    called_ms: AtomicU64,
    epoch: AtomicU32,
    gone: AtomicBool,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            born: Instant::now(),
            called_ms: AtomicU64::new(0),
            epoch: AtomicU32::new(0),
            gone: AtomicBool::new(false),
        }
    }

    pub(crate) fn called(&self, at: Instant) {
        self.called_ms.store(at.duration_since(self.born).as_millis() as u64, Relaxed);
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Relaxed)
    }

    pub(crate) fn error(&self) {
        self.epoch.fetch_add(1, Relaxed);
    }

    pub(crate) fn gone(&self) {
        self.gone.store(true, Relaxed);
    }

    fn health(&self) -> Health {
        let silent = self.born.elapsed().saturating_sub(Duration::from_millis(self.called_ms.load(Relaxed)));
        if self.gone.load(Relaxed) {
            Health::Gone
        } else if silent >= MUTE {
            Health::Mute
        } else {
            Health::Fine
        }
    }
}

/// The rate of `takes` nearest to `rate`; the higher of two equally near.
pub(crate) fn nearest(takes: &[(u32, u32)], rate: u32) -> u32 {
    let candidates = takes.iter().map(|&(low, high)| rate.clamp(low, high));
    candidates.min_by_key(|&r| (r.abs_diff(rate), u32::MAX - r)).unwrap_or(rate)
}

/// Best first: as many bits as there are, then what needs no dither.
const FORMATS: [SampleFormat; 4] = [SampleFormat::I32, SampleFormat::I24, SampleFormat::F32, SampleFormat::I16];

fn open_alsa(
    name: &str,
    rate: u32,
    period_ms: Option<u32>,
    make: impl FnOnce(u32) -> Fill,
) -> Result<Output, OpenError> {
    let said = |e: cpal::Error| match e.kind() {
        ErrorKind::DeviceBusy => OpenError::Busy(name.into()),
        ErrorKind::DeviceNotAvailable => not_there(name),
        _ => OpenError::System { name: name.into(), why: e.to_string() },
    };
    let host = cpal::host_from_id(HostId::Alsa).map_err(said)?;
    let device = if name == "default" {
        host.default_output_device() // listed or not, it can be opened
    } else {
        host.device_by_id(&DeviceId::new(HostId::Alsa, name))
    };
    let device = device.ok_or_else(|| not_there(name))?;
    let ranges: Vec<_> = device.supported_output_configs().map_err(said)?.filter(|r| r.channels() == 2).collect();
    let unfit = || OpenError::Unfit { name: name.into(), what: "stereo in 16, 24 or 32 bits" };
    let format = FORMATS.into_iter().find(|f| ranges.iter().any(|r| r.sample_format() == *f)).ok_or_else(unfit)?;
    let ranges: Vec<_> = ranges.into_iter().filter(|r| r.sample_format() == format).collect();
    let takes: Vec<_> = ranges.iter().map(|r| (r.min_sample_rate(), r.max_sample_rate())).collect();
    let rate = nearest(&takes, rate);

    let hardware = name.starts_with("hw:");
    let period_ms = period_ms.unwrap_or(if hardware && rt::may_fifo() { PERIOD_FIFO_MS } else { PERIOD_MS });
    let mut period = (u64::from(rate) * u64::from(period_ms) / 1_000) as u32;
    if let Some(SupportedBufferSize::Range { min, max }) = ranges.first().map(|r| *r.buffer_size()) {
        period = period.max(min).min(max.max(min));
    }
    let config = StreamConfig { channels: 2, sample_rate: rate, buffer_size: BufferSize::Fixed(period) };
    let meter = Arc::new(Meter::new());
    let mut body = Body {
        format,
        rate,
        fifo: hardware,
        fill: make(rate),
        meter: meter.clone(),
        quantizer: Quantizer::new(),
        floats: Vec::with_capacity(period as usize * 2),
        count: Count::default(),
    };
    let errors = meter.clone();
    let stream = device
        .build_output_stream_raw(
            config,
            format,
            move |data, info| {
                let stamp = info.timestamp();
                body.call(data, stamp.playback.duration_since(stamp.callback));
            },
            move |e| match e.kind() {
                // Runs on the audio thread, up to 100,000 times: count and flag, nothing else.
                ErrorKind::DeviceNotAvailable | ErrorKind::StreamInvalidated => errors.gone(),
                ErrorKind::RealtimeDenied => {}
                _ => errors.error(),
            },
            Some(Duration::from_secs(2)), // of the poll: finds an error that nobody reported
        )
        .map_err(said)?;
    stream.play().map_err(said)?;
    let period = stream.buffer_size().unwrap_or(period);
    Ok(Output { _stream: Stream::Alsa(stream), rate, period, takes, meter })
}

/// Names of all ALSA PCMs that the system lists.
pub fn names() -> Vec<String> {
    let there = cpal::host_from_id(HostId::Alsa).and_then(|h| h.devices().map(|d| d.collect::<Vec<_>>()));
    there.unwrap_or_default().iter().filter_map(|d| Some(d.id().ok()?.id().to_owned())).collect()
}

fn not_there(name: &str) -> OpenError {
    let names = names();
    let there = if names.is_empty() { "none".into() } else { names.join(", ") };
    OpenError::NotThere { name: name.into(), there }
}

/// How many frames have left the DAC, from what cpal tells a callback.
#[derive(Default)]
struct Count {
    written: u64,
    /// Frames written before the epoch began: they cannot be in the device any more.
    before: u64,
    epoch: u32,
    left: u64,
}

impl Count {
    /// For a callback that is to write `frames` while, by the device's word, `delay` of sound waits to be played.
    fn call(&mut self, frames: u64, delay: Duration, rate: u32, epoch: u32) -> u64 {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.before = self.written;
        }
        // cpal made nanoseconds of frames by cutting: round back to the nearest frame.
        let waiting = ((delay.as_nanos() * u128::from(rate) + 500_000_000) / 1_000_000_000) as u64;
        self.left = self.left.max(self.written - waiting.min(self.written - self.before));
        self.written += frames;
        self.left
    }
}

/// The body of cpal's callback.
struct Body {
    format: SampleFormat,
    rate: u32,
    fifo: bool,
    fill: Fill,
    meter: Arc<Meter>,
    quantizer: Quantizer,
    floats: Vec<f32>,
    count: Count,
}

impl Body {
    fn call(&mut self, data: &mut cpal::Data, delay: Duration) {
        if std::mem::take(&mut self.fifo) {
            let _ = rt::fifo(); // refused: the period is long enough without
        }
        let at = Instant::now();
        self.meter.called(at);
        let epoch = self.meter.epoch();
        let left = self.count.call((data.len() / 2) as u64, delay, self.rate, epoch);
        let timing = Timing { left, epoch, at };

        if let Some(out) = data.as_slice_mut::<f32>() {
            (self.fill)(out, timing);
            return;
        }
        let q = &mut self.quantizer;
        // Integers as wide as floats are made where the floats lie: memory that is not touched is time.
        if self.format == SampleFormat::I32 {
            let out = data.as_slice_mut::<i32>().unwrap_or_default();
            (self.fill)(bytemuck::cast_slice_mut(out), timing);
            dither::widen(out);
            return;
        }
        self.floats.resize(data.len(), 0.0);
        let content = (self.fill)(&mut self.floats, timing).unwrap_or(Content::Integer(1));
        if self.format == SampleFormat::I16 {
            let out = data.as_slice_mut::<i16>().unwrap_or_default();
            q.run(&self.floats, 16, content, out, |x| x as i16);
        } else {
            let out = data.as_slice_mut::<I24>().unwrap_or_default();
            q.run(&self.floats, 24, content, out, I24::new_unchecked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_rate_is_taken() {
        let dac = [(44_100, 44_100), (48_000, 48_000), (96_000, 96_000)];
        let got = [44_100, 22_050, 46_050, 88_200, 192_000].map(|r| nearest(&dac, r));
        assert_eq!(got, [44_100, 44_100, 48_000, 96_000, 96_000]);
        assert_eq!(nearest(&[(4_000, 192_000)], 44_100), 44_100);
    }

    #[test]
    fn a_pcm_that_is_not_there_is_named_with_those_that_are() {
        let device: Device = "hw:CARD=nowhere,DEV=0".parse().unwrap();
        let e = Output::open(&device, 48_000, None, |_| Box::new(|_, _| None)).unwrap_err().to_string();
        assert!(e.starts_with("output `hw:CARD=nowhere,DEV=0` is not there; there are: "), "{e}");
    }

    #[test]
    fn frames_left_are_those_written_without_those_that_wait() {
        let mut count = Count::default();
        let ns = |frames: u64| Duration::from_nanos(frames * 1_000_000_000 / 44_100);
        let left = [0, 441, 882, 440].map(|waiting| count.call(441, ns(waiting), 44_100, 0));
        assert_eq!(left, [0, 0, 0, 883]);
        // The playback instant may lag after an error: nothing of the old epoch can be waiting.
        assert_eq!(count.call(441, ns(882), 44_100, 1), 1_764);
        assert_eq!(count.call(441, ns(441), 44_100, 1), 1_764);
        assert_eq!(count.call(441, ns(441), 44_100, 1), 2_205);
    }
}
