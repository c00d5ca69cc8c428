//! Encode: the Opus renditions for bad links, from one resampled copy of the music, packet by packet.
//!
//! *Rung*: one Opus rendition. Law: the four packets before each border are encoded without prediction
//! (`OPUS_SET_PREDICTION_DISABLED`), so that a decoder that chews them is bit-exact; the 80 ms of RFC 7845 alone do not make
//! it so. Two are mostly enough; anti-collapse (RFC 6716, section 4.3.5) looks back two packets, and what it made of those
//! sounds on in the overlap and in the pitch filter of the next: hence up to four, searched per border. So a packet is
//! encoded only when it is known whether one of the four after it begins a segment. All is CELT (the signal is said to be
//! music): SILK's filters do not forget.

use std::collections::VecDeque;

use audioadapter_buffers::direct::InterleavedSlice;
use jukebox_core::library::{Codec, Init, Rendition, RenditionName};
use opus::{Application, Bitrate, Channels, Decoder, Encoder, Signal};
use rubato::{Fft, FixedSync, Resampler};

use super::cut::{Cutter, Preroll, Search, fingerprint};
use super::measure::TruePeak;
use super::source::Unusable;
use super::write::Store;

/// Opus works at this rate.
const RATE: u32 = 48_000;
/// Frames of a packet: 20 ms.
const PACKET: usize = 960;
/// Packets without prediction before a border: the most that a decoder must chew.
const INDEPENDENT: u64 = 4;
/// Fewer are never enough.
const LEAST: usize = 2;
/// One packet more sounds while it is faded in.
const SPARE: usize = 1;
/// The border lies anywhere in a body's first packet and the fade out lasts 10 ms: two packets of the next body.
const TAIL: usize = 2;
/// Longest packet that an encoder makes, in bytes (RFC 6716, section 3.4: 1,275 a frame).
const MAX_BYTES: usize = 1_500;

fn fault<E: std::fmt::Display>(e: E) -> Unusable {
    Unusable::Encode(e.to_string())
}

/// All Opus renditions of a track.
pub struct Ladder<'a> {
    rate: u64,
    channels: usize,
    delay: u64,
    resampler: To48k,
    /// Samples at 48 kHz that are not yet encoded.
    pcm: Vec<f32>,
    /// Packets encoded.
    packets: u64,
    /// Packets that begin segments, as far as known.
    borders: VecDeque<u64>,
    /// All borders in packets before this one are known.
    settled: u64,
    rungs: Vec<Rung<'a>>,
}

struct Rung<'a> {
    name: RenditionName,
    encoder: Encoder,
    decoder: Decoder,
    cutter: Cutter<'a>,
    peak: TruePeak,
}

impl<'a> Ladder<'a> {
    /// For music of `channels` (1 or 2) at `rate`.
    pub fn new(store: &'a Store, channels: u8, rate: u32) -> Result<Self, Unusable> {
        let layout = if channels == 1 { Channels::Mono } else { Channels::Stereo };
        let rung = |(name, bits)| {
            let mut encoder = Encoder::new(RATE, layout, Application::Audio).map_err(fault)?;
            encoder.set_bitrate(Bitrate::Bits(bits)).map_err(fault)?;
            encoder.set_vbr(true).map_err(fault)?;
            let decoder = Decoder::new(RATE, layout).map_err(fault)?;
            encoder.set_signal(Signal::Music).map_err(fault)?;
            let search = Search { init: init(channels, rate), least: LEAST, most: INDEPENDENT as usize, spare: SPARE };
            let cutter = Cutter::new(store, Preroll::Search(search), TAIL).map_err(Unusable::Store)?;
            Ok(Rung { name, encoder, decoder, cutter, peak: TruePeak::new(channels, RATE) })
        };
        let rungs = [(RenditionName::Opus96, 96_000), (RenditionName::Opus32, 32_000)].into_iter().map(rung);
        let mut rungs = rungs.collect::<Result<Vec<_>, Unusable>>()?;
        // The same for all: they differ in nothing else than bits.
        let delay = rungs[0].encoder.get_lookahead().map_err(fault)?.unsigned_abs().into();
        Ok(Self {
            rate: rate.into(),
            channels: channels.into(),
            delay,
            resampler: To48k::new(channels.into(), rate)?,
            pcm: Vec::new(),
            packets: 0,
            borders: VecDeque::new(),
            settled: 0,
            rungs,
        })
    }

    /// The packet that holds audible frame `frame` of the original.
    fn packet_of(&self, frame: u64) -> u64 {
        (self.delay + frame * u64::from(RATE) / self.rate) / PACKET as u64
    }

    /// A segment of the original begins at audible frame `frame`.
    pub fn border(&mut self, frame: u64) {
        let packet = self.packet_of(frame);
        // Never twice, never the first.
        if packet > self.borders.back().copied().unwrap_or(0) {
            self.borders.push_back(packet);
        }
    }

    /// All borders before audible frame `frame` of the original are known.
    pub fn settle(&mut self, frame: u64) {
        self.settled = self.packet_of(frame);
    }

    /// Takes audible interleaved samples of the original.
    pub fn add(&mut self, pcm: &[f32]) -> Result<(), Unusable> {
        self.resampler.add(pcm, &mut self.pcm)?;
        let mut done = 0;
        while self.packets + INDEPENDENT < self.settled && self.pcm.len() - done >= PACKET * self.channels {
            self.encode(done, None)?;
            done += PACKET * self.channels;
        }
        self.pcm.drain(..done);
        Ok(())
    }

    /// Ends the music after `frames` audible frames of the original.
    pub fn finish(mut self, frames: u64) -> Result<Vec<Rendition>, Unusable> {
        let frames = (frames * u64::from(RATE)).div_ceil(self.rate);
        let packets = (self.delay + frames).div_ceil(PACKET as u64);
        self.resampler.finish(&mut self.pcm)?;
        // Resampled or not, the music has `frames` frames; silence fills the last packet.
        let heard = frames.saturating_sub(self.packets * PACKET as u64) as usize * self.channels;
        self.pcm.resize(heard, 0.0);
        self.pcm.resize(packets.saturating_sub(self.packets) as usize * PACKET * self.channels, 0.0);
        let mut done = 0;
        while self.packets < packets {
            self.encode(done, Some(frames))?;
            done += PACKET * self.channels;
        }
        let (delay, channels, rate) = (self.delay, self.channels as u8, self.rate as u32);
        let rendition = |rung: Rung<'_>| {
            let cut = rung.cutter.finish()?;
            Ok(Rendition {
                name: rung.name,
                init: init(channels, rate),
                delay,
                frames,
                true_peak: rung.peak.finish(),
                size: cut.size,
                object: cut.object,
                index: cut.index,
            })
        };
        self.rungs.into_iter().map(rendition).collect()
    }

    /// Encodes the packet whose samples begin at `from`; `end` is the music's length if it is known.
    fn encode(&mut self, from: usize, end: Option<u64>) -> Result<(), Unusable> {
        let number = self.packets;
        let begins = self.borders.front() == Some(&number);
        if begins {
            self.borders.pop_front();
        }
        let independent = self.borders.front().is_some_and(|b| (number + 1..=number + INDEPENDENT).contains(b));
        let pcm = &self.pcm[from..from + PACKET * self.channels];
        // What a player trims does not count for the peak.
        let first = number * PACKET as u64;
        let skip = self.delay.saturating_sub(first).min(PACKET as u64) as usize;
        let keep = end.map_or(PACKET, |e| (self.delay + e).saturating_sub(first).min(PACKET as u64) as usize);
        for rung in &mut self.rungs {
            let mut data = [0; MAX_BYTES];
            rung.encoder.set_prediction_disabled(independent).map_err(fault)?;
            let n = rung.encoder.encode_float(pcm, &mut data).map_err(fault)?;
            let mut heard = [0.0; PACKET * 2];
            let heard = &mut heard[..PACKET * self.channels];
            rung.decoder.decode_float(&data[..n], heard, false).map_err(fault)?;
            rung.peak.add(heard.get(skip * self.channels..keep * self.channels).unwrap_or_default());
            rung.cutter.push(data[..n].to_vec(), PACKET as u32, fingerprint(heard), begins)?;
        }
        self.packets += 1;
        Ok(())
    }
}

/// Decoder parameters: an OpusHead (RFC 7845, section 5.1) whose pre-skip is 0, because the record's `delay` says it.
fn init(channels: u8, rate: u32) -> Init {
    let mut extra = b"OpusHead\x01".to_vec();
    extra.extend([channels, 0, 0]);
    extra.extend(rate.to_le_bytes());
    extra.extend([0, 0, 0]);
    Init { codec: Codec::Opus, rate: RATE, channels, bits: 0, coded_bits: 0, longest_packet: PACKET as u32, extra }
}

/// Resampling to 48 kHz, without delay.
struct To48k {
    channels: usize,
    fft: Option<Fft<f32>>,
    /// Samples that do not yet fill a block.
    rest: Vec<f32>,
    block: Vec<f32>,
    /// Output samples still to be dropped: the filter's delay.
    drop: usize,
}

impl To48k {
    fn new(channels: usize, rate: u32) -> Result<Self, Unusable> {
        let fft = match rate {
            RATE => None,
            _ => Some(Fft::new(rate as usize, RATE as usize, 1_024, channels, FixedSync::Input).map_err(fault)?),
        };
        let drop = fft.as_ref().map_or(0, |f| f.output_delay()) * channels;
        let block = vec![0.0; fft.as_ref().map_or(0, |f| f.output_frames_max()) * channels];
        Ok(Self { channels, fft, rest: Vec::new(), block, drop })
    }

    fn add(&mut self, pcm: &[f32], out: &mut Vec<f32>) -> Result<(), Unusable> {
        let Some(fft) = &mut self.fft else {
            out.extend_from_slice(pcm);
            return Ok(());
        };
        self.rest.extend_from_slice(pcm);
        let mut done = 0;
        loop {
            let frames = fft.input_frames_next();
            let Some(input) = self.rest.get(done..done + frames * self.channels) else { break };
            let room = self.block.len() / self.channels;
            let (_, made) = fft
                .process_into_buffer(
                    &InterleavedSlice::new(input, self.channels, frames).map_err(fault)?,
                    &mut InterleavedSlice::new_mut(&mut self.block, self.channels, room).map_err(fault)?,
                    None,
                )
                .map_err(fault)?;
            let made = made * self.channels;
            let dropped = self.drop.min(made);
            self.drop -= dropped;
            out.extend_from_slice(&self.block[dropped..made]);
            done += frames * self.channels;
        }
        self.rest.drain(..done);
        Ok(())
    }

    /// Pushes out what is still inside, and more.
    fn finish(&mut self, out: &mut Vec<f32>) -> Result<(), Unusable> {
        let Some(fft) = &self.fft else { return Ok(()) };
        let silence = vec![0.0; (fft.input_frames_next() * 2 + fft.input_frames_max()) * self.channels];
        self.add(&silence, out)
    }
}
