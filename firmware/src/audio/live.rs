//! Live radio on the decoder thread: packets from the tape, decoded, at the pace of the DAC.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use audioadapter_buffers::direct::InterleavedSlice;
use jukebox_core::sound::LivePiece;
use rubato::{Adjustable, FixedAsync, Resampler, Slip};
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration as Units, Timestamp};

use super::deck::{CODECS, Undecodable};
use super::drift::Drift;
use super::tape::Tape;

/// No more than this of what has come is kept when it begins: the edge, with all that a station sends at once.
pub(crate) const EDGE: Duration = Duration::from_secs(10);
/// Frames that are slipped together.
const CHUNK: usize = 1_024;
/// Fade at either end of a run: what follows has nothing to do with what was before.
const FADE: usize = 256;
/// Packets in a row that a decoder may fail on.
const PATIENCE: u32 = 40;

/// Frames of a station.
pub(crate) struct Block<'a> {
    /// Interleaved stereo.
    pub(crate) frames: &'a [f32],
    /// Something begins: at this rate, and at this frame.
    pub(crate) fresh: Option<(u32, u64)>,
}

/// A station that is being played.
pub(crate) struct LiveDeck {
    pub(crate) piece: LivePiece,
    tape: Arc<Tape>,
    decoder: Option<Box<dyn AudioDecoder>>,
    rate: u32,
    slip: Slip<f32>,
    drift: Drift,
    pcm: Vec<f32>,
    gathered: Vec<f32>,
    made: Vec<f32>,
    failed: u32,
    /// Given so far.
    played: Duration,
    /// The next frames begin something.
    fresh: bool,
    /// It broke off.
    pub(crate) dry: bool,
}

impl LiveDeck {
    /// From the edge of what has come; none if nothing has. Its rate.
    pub(crate) fn new(piece: LivePiece, tape: Arc<Tape>) -> Option<Self> {
        let rate = tape.go_to_edge(EDGE)?;
        let slip = Slip::new(CHUNK, 2, FixedAsync::Input).ok()?;
        let made = vec![0.0; slip.output_frames_max() * 2];
        let (pcm, gathered) = (Vec::new(), Vec::with_capacity(2 * CHUNK));
        let (decoder, drift, failed, played) = (None, Drift::default(), 0, Duration::ZERO);
        Some(Self {
            piece,
            tape,
            decoder,
            rate,
            slip,
            drift,
            pcm,
            gathered,
            made,
            failed,
            played,
            fresh: true,
            dry: false,
        })
    }

    pub(crate) const fn rate(&self) -> u32 {
        self.rate
    }

    /// Where it is, in frames of its rate.
    fn at(&self) -> u64 {
        let at = Duration::from_micros(self.piece.at.0) + self.played;
        (at.as_micros() * u128::from(self.rate) / 1_000_000) as u64
    }

    /// It broke off: what comes next begins anew.
    pub(crate) fn break_off(&mut self) {
        self.fresh = true;
    }

    /// The next frames, if a packet is here; `ahead`: what is decoded and not heard yet. Errors: it cannot be decoded.
    pub(crate) fn next_block(&mut self, ahead: Duration) -> Option<Result<Block<'_>, Undecodable>> {
        let next = self.tape.next()?;
        if let Some(form) = next.fresh {
            let made = guarded(|| CODECS.make_audio_decoder(&form.parameters, &AudioDecoderOptions::default()));
            let Ok(decoder) = made else { return Some(Err(Undecodable("no decoder for this codec"))) };
            (self.decoder, self.rate, self.fresh) = (Some(decoder), form.rate, true);
            self.gathered.clear();
        }
        self.pcm.clear();
        let (decoder, pcm) = (self.decoder.as_mut()?, &mut self.pcm);
        let channels = guarded(|| {
            let samples =
                decoder.decode_ref(&PacketRef::new(0, Timestamp::new(0), Units::new(0), &next.packet.data))?;
            samples.copy_to_vec_interleaved(pcm);
            Ok(samples.spec().channels().count())
        });
        match channels {
            Ok(1) => {
                let n = self.pcm.len();
                self.pcm.resize(n * 2, 0.0);
                (0..n).rev().for_each(|i| (self.pcm[2 * i], self.pcm[2 * i + 1]) = (self.pcm[i], self.pcm[i]));
                self.failed = 0;
            }
            Ok(2) => self.failed = 0,
            Ok(0) => {}
            Ok(_) => return Some(Err(Undecodable("more than two channels"))),
            Err(()) => {
                self.failed += 1;
                if self.failed > PATIENCE {
                    return Some(Err(Undecodable("one packet after the other cannot be decoded")));
                }
                // What is broken is silence of its length.
                self.pcm.resize(next.packet.frames.min(1 << 13) as usize * 2, 0.0);
            }
        }
        let fresh = self.fresh && !self.pcm.is_empty();
        let at = self.at();
        if fresh {
            self.fresh = false;
            fade(&mut self.pcm, false);
        }
        if next.last {
            fade(&mut self.pcm, true);
        }
        let seconds = (self.pcm.len() / 2) as f64 / f64::from(self.rate);
        let level = self.tape.level() + ahead;
        let pull = self.drift.look(seconds, level.as_secs_f64());
        // Beyond what can be slipped it would do its best; it never comes near.
        let _ = self.slip.set_resample_ratio(1.0 - pull * 1e-6, false);
        self.played += Duration::from_secs_f64(seconds);
        self.slip();
        if next.last {
            self.pcm.append(&mut self.gathered);
        }
        Some(Ok(Block { frames: &self.pcm, fresh: fresh.then_some((self.rate, at)) }))
    }

    /// Brings what is in `pcm` to the DAC's pace, in chunks; what is less than one waits.
    fn slip(&mut self) {
        self.gathered.append(&mut self.pcm);
        let mut used = 0;
        while self.gathered.len() - used >= 2 * CHUNK {
            let room = self.made.len() / 2;
            let source = InterleavedSlice::new(&self.gathered[used..used + 2 * CHUNK], 2, CHUNK);
            let target = InterleavedSlice::new_mut(&mut self.made, 2, room);
            let made = match (source, target) {
                (Ok(source), Ok(mut target)) => self.slip.process_into_buffer(&source, &mut target, None).ok(),
                _ => None,
            };
            match made {
                Some((_, frames)) => self.pcm.extend_from_slice(&self.made[..2 * frames]),
                // Both are of the size that it asked for: it cannot fail, and if it did the music would go on as it is.
                None => self.pcm.extend_from_slice(&self.gathered[used..used + 2 * CHUNK]),
            }
            used += 2 * CHUNK;
        }
        self.gathered.drain(..used);
    }
}

/// Fades the first frames in, or the last out.
fn fade(pcm: &mut [f32], out: bool) {
    let frames = pcm.as_chunks_mut::<2>().0;
    let length = FADE.min(frames.len());
    let at = |i: usize| (i as f32 + 0.5) / length as f32;
    let scale = |f: &mut [f32; 2], by: f32| *f = [f[0] * by, f[1] * by];
    if out {
        frames.iter_mut().rev().take(length).enumerate().for_each(|(i, f)| scale(f, at(i)));
    } else {
        frames.iter_mut().take(length).enumerate().for_each(|(i, f)| scale(f, at(i)));
    }
}

/// Hostile bytes make decoders panic: that costs the packet.
fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, ()> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        _ => Err(()),
    }
}
