//! A virtual DAC: paces like a real one, or runs as fast as it is fed, and records what it played.
//!
//! *Paced*: periods by the monotonic clock, two of them as buffer; late by two, its clock waits. *Unpaced*: no clock; a
//! period is played as soon as there is one. What is recorded is what left the DAC, silence of xruns included. Faults are
//! asked for: unplugged, mute, xrun.
//! Where sound is asserted, it stands where the real device would and passes the same tests.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::dither::Quantizer;
use crate::output::{Content, Fill, Meter, OpenError, Timing, nearest};

/// Stack of the virtual device's thread.
const STACK: usize = 256 << 10;

/// Form of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// 16-bit integer.
    S16,
    /// 24-bit integer, three bytes.
    S24,
    /// 32-bit integer.
    S32,
    /// 32-bit float.
    F32,
}

impl Form {
    const fn bytes(self) -> usize {
        match self {
            Self::S16 => 2,
            Self::S24 => 3,
            Self::S32 | Self::F32 => 4,
        }
    }
}

/// A virtual DAC. Clones are the same DAC.
#[derive(Clone)]
pub struct Dac(Arc<Inner>);

struct Inner {
    name: String,
    paced: bool,
    form: Form,
    /// Rates that it takes, as ranges.
    takes: Vec<(u32, u32)>,
    present: AtomicBool,
    mute: AtomicBool,
    xrun: AtomicBool,
    tape: Mutex<Tape>,
}

/// What was played.
#[derive(Default)]
struct Tape {
    rate: u32,
    /// In memory, raw, little-endian, interleaved.
    kept: Option<Vec<u8>>,
    file: Option<Wav>,
    path: Option<PathBuf>,
    /// Files begun: one for each rate in turn.
    files: u32,
}

impl Dac {
    /// A DAC that keeps what it played in memory, for tests. It takes the `rates`, or any if there are none.
    pub fn keeping(form: Form, paced: bool, rates: &[u32]) -> Self {
        let name = if paced { "paced" } else { "unpaced" };
        let takes = if rates.is_empty() { ANY.to_vec() } else { rates.iter().map(|&r| (r, r)).collect() };
        Self::new(name.into(), paced, form, takes, Tape { kept: Some(vec![]), ..Tape::default() })
    }

    /// The DAC of that name, or `None` if the name is no virtual DAC's: `paced` or `unpaced`, then optionally a colon, the
    /// form (`s16:` if none is named) and a WAV file that is overwritten. While a file `FILE.gone` exists beside it, the
    /// DAC is unplugged. Another rate goes to `FILE-2.wav`, and so on: a WAV file has one rate.
    ///
    /// # Errors
    /// The name begins like a virtual DAC's and does not go on like one.
    pub fn named(name: &str) -> Result<Option<Self>, OpenError> {
        let (kind, rest) = name.split_once(':').map_or((name, None), |(k, r)| (k, Some(r)));
        let paced = match kind {
            "paced" => true,
            "unpaced" => false,
            _ => return Ok(None),
        };
        let (form, path) = match rest.map(|r| (r, r.split_once(':'))) {
            None => (Form::S16, None),
            Some((_, Some(("s16", path)))) => (Form::S16, Some(path)),
            Some((_, Some(("s24", path)))) => (Form::S24, Some(path)),
            Some((_, Some(("s32", path)))) => (Form::S32, Some(path)),
            Some((_, Some(("f32", path)))) => (Form::F32, Some(path)),
            Some((path, _)) => (Form::S16, Some(path)),
        };
        if path == Some("") {
            return Err(OpenError::Name(name.into()));
        }
        let tape = Tape { path: path.map(PathBuf::from), ..Tape::default() };
        Ok(Some(Self::new(name.into(), paced, form, ANY.to_vec(), tape)))
    }

    fn new(name: String, paced: bool, form: Form, takes: Vec<(u32, u32)>, tape: Tape) -> Self {
        let (present, mute, xrun) = (AtomicBool::new(true), AtomicBool::new(false), AtomicBool::new(false));
        Self(Arc::new(Inner { name, paced, form, takes, present, mute, xrun, tape: Mutex::new(tape) }))
    }

    /// As it is called in a configuration.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Pulls it out: an open stream ends with an error, and what its buffer held is lost, as with a real device.
    pub fn unplug(&self) {
        self.0.present.store(false, Relaxed);
    }

    /// Puts it back.
    pub fn plug(&self) {
        self.0.present.store(true, Relaxed);
    }

    /// Stops asking for frames without a word, or goes on.
    pub fn mute(&self, mute: bool) {
        self.0.mute.store(mute, Relaxed);
    }

    /// Lets its buffer run dry once, if it is paced.
    pub fn xrun(&self) {
        self.0.xrun.store(true, Relaxed);
    }

    /// The rate that it was last opened at.
    pub fn rate(&self) -> u32 {
        self.tape().rate
    }

    /// Frames kept in memory so far.
    pub fn frames(&self) -> usize {
        self.tape().kept.as_ref().map_or(0, Vec::len) / (2 * self.0.form.bytes())
    }

    /// What was played, as integers in the form's own steps. Empty for floats, or if nothing is kept.
    pub fn integers(&self) -> Vec<i32> {
        let tape = self.tape();
        let bytes = tape.kept.as_deref().unwrap_or_default();
        match self.0.form {
            Form::S16 => bytes.as_chunks::<2>().0.iter().map(|b| i16::from_le_bytes(*b).into()).collect(),
            Form::S24 => {
                let wide = bytes.as_chunks::<3>().0.iter().map(|b| i32::from_le_bytes([0, b[0], b[1], b[2]]));
                wide.map(|x| x >> 8).collect()
            }
            Form::S32 => bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b)).collect(),
            Form::F32 => vec![],
        }
    }

    /// What was played, as floats. Empty for integers, or if nothing is kept.
    pub fn floats(&self) -> Vec<f32> {
        let tape = self.tape();
        let bytes = tape.kept.as_deref().filter(|_| self.0.form == Form::F32).unwrap_or_default();
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    pub(crate) fn is_paced(&self) -> bool {
        self.0.paced
    }

    pub(crate) fn takes(&self) -> &[(u32, u32)] {
        &self.0.takes
    }

    fn tape(&self) -> MutexGuard<'_, Tape> {
        self.0.tape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_present(&self) -> bool {
        let gone = self.tape().path.as_deref().map(|p| beside(p, ".gone"));
        self.0.present.load(Relaxed) && !gone.is_some_and(|g| g.exists())
    }

    /// Starts asking `fill`. Returns the rate and the period in frames.
    pub(crate) fn open(
        &self,
        rate: u32,
        period_ms: u32,
        make: impl FnOnce(u32) -> Fill,
        meter: Arc<Meter>,
    ) -> Result<(Run, u32, u32), OpenError> {
        let name = self.name();
        if !self.is_present() {
            return Err(OpenError::NotThere { name: name.into(), there: "none".into() });
        }
        let system = |e: io::Error| OpenError::System { name: name.into(), why: e.to_string() };
        let rate = nearest(&self.0.takes, rate);
        self.tape().open(rate, self.0.form).map_err(system)?;
        let period = (u64::from(rate) * u64::from(period_ms) / 1_000).max(16) as u32;
        let stop = Arc::new(AtomicBool::new(false));
        let body = Body {
            dac: self.clone(),
            rate,
            fill: make(rate),
            meter,
            quantizer: Quantizer::new(),
            floats: vec![0.0; period as usize * 2],
            waiting: VecDeque::with_capacity(3),
            spare: vec![],
            written: 0,
            stop: stop.clone(),
        };
        let paced = self.0.paced;
        let work = move || if paced { body.paced() } else { body.unpaced() };
        let thread = std::thread::Builder::new().name("virtual-dac".into()).stack_size(STACK).spawn(work);
        Ok((Run { thread: Some(thread.map_err(system)?), stop }, rate, period))
    }
}

const ANY: [(u32, u32); 1] = [(4_000, 384_000)];

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// An open virtual DAC; ends with its drop.
pub(crate) struct Run {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join(); // it panicked: so did a test's fill, which has said so
        }
    }
}

struct Body {
    dac: Dac,
    rate: u32,
    fill: Fill,
    meter: Arc<Meter>,
    quantizer: Quantizer,
    floats: Vec<f32>,
    /// Periods handed over and not yet played.
    waiting: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    written: u64,
    stop: Arc<AtomicBool>,
}

impl Body {
    const fn period(&self) -> u64 {
        (self.floats.len() / 2) as u64
    }

    fn span(&self, periods: u64) -> Duration {
        Duration::from_nanos(periods * self.period() * 1_000_000_000 / u64::from(self.rate))
    }

    fn paced(mut self) {
        let mut start = Instant::now();
        let mut played = 0u64; // periods since `start`
        while !self.ended() {
            if self.dac.0.mute.load(Relaxed) {
                std::thread::park_timeout(self.span(1));
                (start, played) = (Instant::now(), 0);
                continue;
            }
            while self.waiting.len() < 2 {
                self.ask();
            }
            let due = start + self.span(played + 1);
            let now = Instant::now();
            if now < due {
                std::thread::park_timeout(due - now);
                continue;
            }
            if self.dac.0.xrun.swap(false, Relaxed) {
                // The buffer ran dry: what was in it was played, then silence, then an error.
                while let Some(period) = self.waiting.pop_front() {
                    self.play(period);
                }
                let silence = vec![0; self.floats.len() * self.dac.0.form.bytes()];
                self.dac.tape().write(&silence);
                self.meter.error();
                (start, played) = (now, 0);
                continue;
            }
            if now - due >= self.span(2) {
                // A busy machine woke this thread too late. The player is what is measured, not the machine: this clock waits.
                (start, played) = (now, 0);
            }
            if let Some(period) = self.waiting.pop_front() {
                self.play(period);
            }
            played += 1;
            self.ask(); // at once, so that whoever asks is told of all that was played
        }
    }

    fn unpaced(mut self) {
        while !self.ended() {
            if self.dac.0.mute.load(Relaxed) {
                std::thread::park_timeout(Duration::from_millis(10));
            } else if self.ask()
                && let Some(period) = self.waiting.pop_front()
            {
                self.play(period);
            }
        }
    }

    fn ended(&self) -> bool {
        if !self.dac.is_present() {
            self.meter.gone();
            return true;
        }
        self.stop.load(Relaxed)
    }

    fn play(&mut self, period: Vec<u8>) {
        self.dac.tape().write(&period);
        self.spare.push(period);
    }

    /// Asks for a period; whether anything was due.
    fn ask(&mut self) -> bool {
        let at = Instant::now();
        self.meter.called(at);
        let left = self.written - self.waiting.len() as u64 * self.period();
        let content = (self.fill)(&mut self.floats, Timing { left, epoch: self.meter.epoch(), at });
        if content.is_none() && !self.dac.0.paced {
            return false;
        }
        let content = content.unwrap_or(Content::Integer(1));
        self.written += self.period();
        let form = self.dac.0.form;
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.resize(self.floats.len() * form.bytes(), 0);
        let (from, q) = (&self.floats, &mut self.quantizer);
        match form {
            Form::S16 => q.run(from, 16, content, bytes.as_chunks_mut().0, |x| (x as i16).to_le_bytes()),
            Form::S24 => q.run(from, 24, content, bytes.as_chunks_mut().0, |x| {
                let [a, b, c, _] = x.to_le_bytes();
                [a, b, c]
            }),
            Form::S32 => q.run(from, 32, content, bytes.as_chunks_mut().0, i32::to_le_bytes),
            Form::F32 => {
                let to = bytes.as_chunks_mut().0;
                from.iter().zip(to).for_each(|(x, y)| *y = x.to_le_bytes());
            }
        }
        self.waiting.push_back(bytes);
        true
    }
}

impl Tape {
    fn open(&mut self, rate: u32, form: Form) -> io::Result<()> {
        if let Some(path) = &self.path
            && (rate != self.rate || self.file.is_none())
        {
            self.files += 1;
            let name = match self.files {
                1 => path.clone(),
                n => path.with_file_name(format!(
                    "{}-{n}.wav",
                    path.file_stem().map(|s| s.to_string_lossy()).unwrap_or_default()
                )),
            };
            self.file = Some(Wav::create(&name, rate, form)?);
        }
        self.rate = rate;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(bytes);
        }
        // A full disk must not stop the sound that is being tested; the file's length tells.
        if self.file.as_mut().is_some_and(|f| f.write(bytes).is_err()) {
            self.file = None;
        }
    }
}

/// A WAV file (RIFF, WAVE_FORMAT_PCM or IEEE_FLOAT) whose header is right after every second of sound.
struct Wav {
    file: File,
    bytes: u32,
    told: u32,
    second: u32,
}

impl Wav {
    fn create(path: &Path, rate: u32, form: Form) -> io::Result<Self> {
        let frame = 2 * form.bytes() as u16;
        let second = rate * u32::from(frame);
        let kind = if form == Form::F32 { 3u16 } else { 1 };
        let mut header = Vec::with_capacity(44);
        header.extend_from_slice(b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0");
        header.extend_from_slice(&kind.to_le_bytes());
        header.extend_from_slice(&2u16.to_le_bytes());
        header.extend_from_slice(&rate.to_le_bytes());
        header.extend_from_slice(&second.to_le_bytes());
        header.extend_from_slice(&frame.to_le_bytes());
        header.extend_from_slice(&(form.bytes() as u16 * 8).to_le_bytes());
        header.extend_from_slice(b"data\0\0\0\0");
        let mut file = File::create(path)?;
        file.write_all(&header)?;
        Ok(Self { file, bytes: 0, told: 0, second })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes = self.bytes.saturating_add(bytes.len() as u32);
        if self.bytes - self.told >= self.second { self.tell() } else { Ok(()) }
    }

    fn tell(&mut self) -> io::Result<()> {
        self.told = self.bytes;
        self.file.seek(SeekFrom::Start(4))?;
        self.file.write_all(&self.bytes.saturating_add(36).to_le_bytes())?;
        self.file.seek(SeekFrom::Start(40))?;
        self.file.write_all(&self.bytes.to_le_bytes())?;
        self.file.seek(SeekFrom::End(0)).map(drop)
    }
}

impl Drop for Wav {
    fn drop(&mut self) {
        let _ = self.tell(); // nobody is left to be told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Device, Health, Output};
    use std::sync::mpsc;

    /// Plays 1, 2, 3, ... as 16-bit steps; sends what each call saw.
    fn ramp() -> (Fill, mpsc::Receiver<Timing>) {
        let (tx, rx) = mpsc::channel();
        let mut n = 0i16;
        let fill: Fill = Box::new(move |out, t| {
            let _ = tx.send(t);
            for frame in out.as_chunks_mut::<2>().0 {
                n = n.wrapping_add(1);
                *frame = [f32::from(n) / 32_768.0; 2];
            }
            Some(Content::Integer(16))
        });
        (fill, rx)
    }

    #[test]
    fn what_left_is_what_was_recorded_and_it_keeps_time() {
        let dac = Dac::keeping(Form::S16, true, &[48_000]);
        let (fill, calls) = ramp();
        let begun = Instant::now();
        let output = Output::open(&Device::Virtual(dac.clone()), 44_100, Some(5), |_| fill).unwrap();
        assert_eq!((output.rate(), output.period()), (48_000, 240));
        let seen: Vec<Timing> = calls.iter().take(22).collect();
        let took = begun.elapsed();
        {
            assert_eq!(
                seen.iter().map(|t| t.left).collect::<Vec<_>>(),
                (0..22u64).map(|i| i.saturating_sub(1) * 240).collect::<Vec<_>>()
            );
            assert!(took >= Duration::from_millis(95), "{took:?} for 20 periods of 5 ms beyond the buffer");
        }
        assert_eq!(output.health(), Health::Fine);
        drop(output);
        let played = dac.integers();
        assert!(played.len() >= 20 * 480);
        assert_eq!(played[..480], (1..=240).flat_map(|n| [n, n]).collect::<Vec<_>>());
    }

    #[test]
    fn a_dac_that_is_pulled_out_is_gone_and_comes_back() {
        let dac = Dac::keeping(Form::S16, true, &[]);
        let device = Device::Virtual(dac.clone());
        let (fill, calls) = ramp();
        let output = Output::open(&device, 8_000, Some(5), |_| fill).unwrap();
        calls.recv().unwrap();
        dac.unplug();
        assert!(calls.iter().count() < 10_000, "the thread has ended");
        assert_eq!(output.health(), Health::Gone);
        assert!(matches!(Output::open(&device, 8_000, None, |_| ramp().0), Err(OpenError::NotThere { .. })));
        dac.plug();
        assert!(Output::open(&device, 8_000, None, |_| ramp().0).is_ok());
    }

    #[test]
    fn every_form_of_wav_is_read_by_others() {
        let dir = tempfile::tempdir().unwrap();
        for (form, codec) in [("s16", "pcm_s16le"), ("s24", "pcm_s24le"), ("s32", "pcm_s32le"), ("f32", "pcm_f32le")] {
            let path = dir.path().join(format!("{form}.wav"));
            let device: Device = format!("unpaced:{form}:{}", path.display()).parse().unwrap();
            let (fill, calls) = ramp();
            let output = Output::open(&device, 44_100, Some(10), |_| fill).unwrap();
            calls.iter().take(9).for_each(drop);
            drop((output, device));
            let mut ffmpeg = std::process::Command::new("ffmpeg");
            let probe = ffmpeg.args(["-v", "error", "-i"]).arg(&path).args(["-f", "s16le", "-"]).output().unwrap();
            assert!(probe.stderr.is_empty(), "{codec}: {}", String::from_utf8_lossy(&probe.stderr));
            let samples: Vec<i16> = probe.stdout.as_chunks().0.iter().map(|b| i16::from_le_bytes(*b)).collect();
            assert_eq!(samples[..6], [1, 1, 2, 2, 3, 3], "{codec}");
        }
    }

    #[test]
    fn names_are_understood_or_refused() {
        assert!(Dac::named("hw:0").unwrap().is_none());
        assert_eq!(Dac::named("paced:s24:/tmp/x.wav").unwrap().unwrap().0.form, Form::S24);
        assert!(matches!(Dac::named("paced:"), Err(OpenError::Name(_))));
    }
}
