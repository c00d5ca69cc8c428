//! Convert: sound that no rendition can hold as it is becomes FLAC, every frame of which is decoded again and compared.
//!
//! Integer samples of at most 24 bits keep every bit. Float and 32-bit samples are rounded to 24 bits; more than two channels are
//! mixed to two (ITU-R BS.775-3, annex 4: centre and surrounds at -3 dB, no LFE; lowered so that it cannot clip).

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use flac_codec::encode::{FlacStreamWriter, Options};
use jukebox_core::library::{Codec, Init};
use sha2::{Digest as _, Sha256};
use symphonia::core::audio::{Channels, GenericAudioBufferRef as Sound, Position};
use symphonia::core::codecs::audio::AudioDecoder;
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};

use super::source::{Unusable, decoder};

/// Frames of a FLAC packet.
const BLOCK: usize = 4_096;

/// Makes FLAC packets of decoded sound.
pub struct Convert {
    /// Decoder parameters of what comes out.
    pub init: Init,
    /// What is done to the sound, for people; none if nothing is lost.
    pub note: Option<String>,
    source_channels: usize,
    /// Bits of a source's sample, 0 for float.
    source_bits: u8,
    /// What each channel gives to left and right.
    mix: Option<Vec<[f64; 2]>>,
    writer: FlacStreamWriter<Sink>,
    sink: Sink,
    check: Box<dyn AudioDecoder>,
    integers: Vec<i32>,
    floats: Vec<f32>,
    /// Samples that are not in a packet yet.
    block: Vec<i32>,
}

/// Where the encoder writes to.
#[derive(Clone, Default)]
struct Sink(Rc<RefCell<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Convert {
    /// For sound of `channels` at `rate`, in samples of `bits` (0: float).
    pub fn new(rate: u32, channels: &Channels, bits: u8) -> Result<Self, Unusable> {
        let count = channels.count();
        let mix = if count > 2 { Some(weights(channels).ok_or(Unusable::Channels(count))?) } else { None };
        let exact = mix.is_none() && (1..=24).contains(&bits);
        // The sizes that a frame's header can name (RFC 9639, section 9.1.4).
        let out_bits = if exact { [8, 12, 16, 20, 24].into_iter().find(|&b| b >= bits).unwrap_or(24) } else { 24 };
        let note = match (&mix, bits) {
            (Some(_), _) => Some(format!("has {count} channels: mixed to stereo")),
            (None, 0) => Some("has samples in floating point: rounded to 24 bits".into()),
            (None, 25..) => Some(format!("has {bits}-bit samples: rounded to 24 bits")),
            _ => None,
        };
        let out = count.min(2) as u8;
        let init = Init {
            codec: Codec::Flac,
            rate,
            channels: out,
            bits: out_bits,
            coded_bits: out_bits,
            longest_packet: BLOCK as u32,
            extra: stream_info(rate, out, out_bits),
        };
        let check = decoder(&init).map_err(|e| Unusable::Encode(e.to_string()))?;
        let sink = Sink::default();
        Ok(Self {
            init,
            note,
            source_channels: count,
            source_bits: bits,
            mix,
            writer: FlacStreamWriter::new(sink.clone(), Options::default()),
            sink,
            check,
            integers: vec![],
            floats: vec![],
            block: vec![],
        })
    }

    /// What names the sound, so far: see `source::name_of`.
    pub fn name(&self) -> Sha256 {
        let channels = self.source_channels as u8;
        super::source::name_of(&Init { channels, bits: self.source_bits, extra: vec![], ..self.init.clone() })
    }

    /// Channels of the source.
    pub const fn channels(&self) -> usize {
        self.source_channels
    }

    /// Takes at most `most` frames of decoded sound, whose samples go into `name`; returns how many.
    pub fn put(&mut self, sound: &Sound<'_>, most: u64, name: &mut Sha256) -> u64 {
        let frames = usize::try_from(most).unwrap_or(usize::MAX).min(sound.frames());
        if self.source_bits == 0 {
            sound.copy_to_vec_interleaved(&mut self.floats);
            self.floats.truncate(frames * self.source_channels);
            self.floats.iter().for_each(|x| name.update(x.to_le_bytes()));
        } else {
            sound.copy_to_vec_interleaved(&mut self.integers);
            self.integers.truncate(frames * self.source_channels);
            let bytes = usize::from(self.source_bits.div_ceil(8)).min(4);
            let raw: Vec<u8> = self.integers.iter().flat_map(|x| x.to_le_bytes().into_iter().skip(4 - bytes)).collect();
            name.update(raw);
        }
        self.take();
        frames as u64
    }

    /// Takes silence in the place of what could not be decoded.
    pub fn put_silence(&mut self, frames: u64) {
        let samples = frames as usize * self.source_channels;
        self.floats.clear();
        self.integers.clear();
        if self.source_bits == 0 {
            self.floats.resize(samples, 0.0);
        } else {
            self.integers.resize(samples, 0);
        }
        self.take();
    }

    fn take(&mut self) {
        let bits = self.init.bits;
        if let (None, 1..=24) = (&self.mix, self.source_bits) {
            self.block.extend(self.integers.iter().map(|x| x >> (32 - bits)));
            return;
        }
        let round =
            |x: f64| (x * f64::from(1 << 23)).round().clamp(-f64::from(1 << 23), f64::from((1 << 23) - 1)) as i32;
        let samples: Vec<f64> = match self.source_bits {
            0 => self.floats.iter().map(|&x| if x.is_finite() { x.into() } else { 0.0 }).collect(),
            _ => self.integers.iter().map(|&x| f64::from(x) / f64::from(1u32 << 31)).collect(),
        };
        match &self.mix {
            None => self.block.extend(samples.iter().map(|&x| round(x))),
            Some(mix) => self.block.extend(samples.chunks_exact(self.source_channels).flat_map(|frame| {
                let sum = |side: usize| frame.iter().zip(mix).map(|(x, w)| x * w[side]).sum::<f64>();
                [round(sum(0)), round(sum(1))]
            })),
        }
    }

    /// The next packet, whose samples are put into `pcm`; `end`: also one that is not full.
    pub fn packet(&mut self, end: bool, pcm: &mut Vec<f32>) -> Result<Option<Vec<u8>>, Unusable> {
        let channels = usize::from(self.init.channels);
        let full = BLOCK * channels;
        if self.block.is_empty() || (self.block.len() < full && !end) {
            return Ok(None);
        }
        let samples = &self.block[..full.min(self.block.len())];
        let fault = |e: String| Unusable::Encode(e);
        self.writer
            .write(self.init.rate, self.init.channels, self.init.bits.into(), samples)
            .map_err(|e| fault(e.to_string()))?;
        let data = std::mem::take(&mut *self.sink.0.borrow_mut());
        let packet = PacketRef::new(0, Timestamp::new(0), Duration::ZERO, &data);
        let sound = self.check.decode_ref(&packet).map_err(|e| fault(e.to_string()))?;
        sound.copy_to_vec_interleaved(&mut self.integers);
        let shift = 32 - self.init.bits;
        if self.integers.len() != samples.len() || self.integers.iter().zip(samples).any(|(a, b)| a >> shift != *b) {
            return Err(fault("the FLAC made of it is another sound".into()));
        }
        sound.copy_to_vec_interleaved(pcm);
        let done = samples.len();
        self.block.drain(..done);
        Ok(Some(data))
    }

    /// Whether a whole packet waits.
    pub fn is_full(&self) -> bool {
        self.block.len() >= BLOCK * usize::from(self.init.channels)
    }
}

/// STREAMINFO (RFC 9639, section 8.2) without length and digest, which are not known before the end.
fn stream_info(rate: u32, channels: u8, bits: u8) -> Vec<u8> {
    let mut info = [(BLOCK as u16).to_be_bytes(), (BLOCK as u16).to_be_bytes()].concat();
    info.extend([0; 6]);
    let packed = u64::from(rate) << 44 | u64::from(channels - 1) << 41 | u64::from(bits - 1) << 36;
    info.extend(packed.to_be_bytes());
    info.extend([0; 16]);
    info
}

/// What each channel gives to left and right. None for what has no places, like Ambisonics.
fn weights(channels: &Channels) -> Option<Vec<[f64; 2]>> {
    use Position as P;
    let places = match channels {
        Channels::Positioned(p) => *p,
        // As WAV and FLAC order them.
        Channels::Discrete(3) => P::FRONT_LEFT | P::FRONT_RIGHT | P::FRONT_CENTER,
        Channels::Discrete(4) => P::FRONT_LEFT | P::FRONT_RIGHT | P::REAR_LEFT | P::REAR_RIGHT,
        Channels::Discrete(5) => P::FRONT_LEFT | P::FRONT_RIGHT | P::FRONT_CENTER | P::REAR_LEFT | P::REAR_RIGHT,
        Channels::Discrete(6) => {
            P::FRONT_LEFT | P::FRONT_RIGHT | P::FRONT_CENTER | P::LFE1 | P::REAR_LEFT | P::REAR_RIGHT
        }
        _ => return None,
    };
    let side = std::f64::consts::FRAC_1_SQRT_2;
    let weight = |p: Position| match p {
        P::FRONT_LEFT => [1.0, 0.0],
        P::FRONT_RIGHT => [0.0, 1.0],
        P::REAR_LEFT | P::SIDE_LEFT | P::FRONT_LEFT_CENTER | P::TOP_FRONT_LEFT | P::TOP_REAR_LEFT => [side, 0.0],
        P::REAR_RIGHT | P::SIDE_RIGHT | P::FRONT_RIGHT_CENTER | P::TOP_FRONT_RIGHT | P::TOP_REAR_RIGHT => [0.0, side],
        P::LFE1 | P::LFE2 => [0.0, 0.0],
        P::REAR_CENTER => [0.5, 0.5],
        _ => [side, side],
    };
    let weights: Vec<[f64; 2]> = places.iter().map(weight).collect();
    let sum = |s: usize| weights.iter().map(|w| w[s]).sum::<f64>();
    let most = sum(0).max(sum(1)).max(1.0);
    Some(weights.into_iter().map(|w| w.map(|x| x / most)).collect())
}
