//! Segments in, audible frames out, wherever it starts.
//!
//! Packets go straight into the codec's decoder; nobody here knows a container. Trimming is done in this one place, in
//! decoded frames, and never by the decoder. A packet that cannot be decoded becomes silence of its length, so that every
//! later position stays right; where a segment's first frame is known to lie, the count is set right again. Silence before a
//! segment's first good packet is held back until that packet comes: a segment without one gives nothing at all, and another
//! rendition of it can take its place.
//!
//! A segment's tail is decoded as well, for a cross-fade. It is copies of what comes next: if that follows, in the same
//! rendition, its first packets are not decoded again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use jukebox_board::output::Content;
use jukebox_core::library::{Codec, Init, Rendition};
use jukebox_core::segment::Segment;
use jukebox_core::sound::{EntryId, Piece};
use symphonia::core::audio::layouts;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AAC, CODEC_ID_FLAC, CODEC_ID_MP3, CODEC_ID_OPUS, CODEC_ID_VORBIS,
};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::errors::Error;
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};

/// Panics of a decoder that one track may cost.
const PANICS: u32 = 3;
/// Longest silence that stands for what a segment failed to give, in frames.
const LONGEST_GAP: u64 = 1 << 20;

/// Every codec that symphonia was built with, and libopus.
pub(crate) static CODECS: LazyLock<CodecRegistry> = LazyLock::new(|| {
    let mut registry = CodecRegistry::new();
    symphonia::default::register_enabled_codecs(&mut registry);
    registry.register_audio_decoder::<symphonia_adapter_libopus::OpusDecoder>();
    registry
});

/// The digest is right, and yet: what the decoder said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Undecodable(pub &'static str);

/// A stretch of audible frames.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// Interleaved stereo.
    pub frames: &'a [f32],
    /// Audible frame that it begins with.
    pub at: u64,
    /// The body ends with it.
    pub last: bool,
    /// It belongs to the tail: to be heard only if the next piece begins with other packets.
    pub tail: bool,
}

/// Decodes pieces, one packet at a time.
#[derive(Default)]
pub struct Deck {
    decoder: Option<Box<dyn AudioDecoder>>,
    /// Whose decoder it is.
    rendition: Option<Arc<Rendition>>,
    /// The packet that it would go on with.
    next_packet: Option<u64>,
    /// Decoded frames up to there, as counted.
    counted: Option<u64>,
    /// Packets and frames of the tail before there.
    ahead: (u64, u64),
    piece: Option<Loaded>,
    /// Length of the packet before, in frames: what one that cannot be decoded stands for.
    usual: u64,
    entry: Option<EntryId>,
    panics: u32,
    /// Frames were given of what is loaded, or was last.
    given: bool,
    /// Gain that an Opus header asks for.
    factor: Option<f32>,
    pcm: Vec<f32>,
    stereo: Vec<f32>,
}

struct Loaded {
    bytes: Vec<u8>,
    /// Start and end of the packets that are left, last first: the body's, then the tail's.
    left: Vec<(usize, usize)>,
    /// How many of them are the tail's.
    tail: usize,
    /// The body's end was given.
    ended: bool,
    /// What the pre-roll's last packet decoded to, if it is to be heard. Held back until a packet of the body was decoded.
    lead: Vec<f32>,
    /// Decoded frames before the next packet.
    frame: u64,
    /// First and last (exclusive) audible frame wanted.
    from: u64,
    to: u64,
    delay: u64,
    channels: usize,
    /// Silence due before the next packet, in frames. Held back likewise.
    gap: u64,
    /// A packet of the body was decoded.
    good: bool,
    total: usize,
}

impl Deck {
    /// Takes a segment, whose digest was checked. Returns whether it goes on, without a seam, from the piece before.
    /// With a `lead` that begins before the body: the pre-roll's last packet is to be heard, for a cross-fade.
    ///
    /// # Errors
    /// The bytes are no segment, no decoder takes the init, or it has panicked three times in this rendition.
    pub fn load(&mut self, bytes: Vec<u8>, piece: &Piece, lead: bool) -> Result<bool, Undecodable> {
        (self.piece, self.given) = (None, false);
        let rendition = &piece.rendition;
        let same = self.rendition.as_ref().is_some_and(|r| r.object == rendition.object);
        if self.entry != Some(piece.entry) || !same {
            self.entry = Some(piece.entry);
            self.panics = 0;
        }
        if self.panics >= PANICS {
            return Err(Undecodable("the decoder panicked three times"));
        }
        let segment = Segment::decode(&bytes).map_err(|_| Undecodable("the segment is malformed"))?;
        let (ahead, known) = std::mem::take(&mut self.ahead);
        let follows = self.next_packet == Some(segment.first_packet + ahead) && ahead <= segment.body.len() as u64;
        let joined = same && self.decoder.is_some() && follows;
        let channels: usize = rendition.init.channels.clamp(1, 2).into();
        let (mut frame, mut from) = (segment.first_frame, piece.from.min(rendition.frames));
        let (mut gap, mut heard) = (0, Vec::new());
        if joined {
            // What was counted and what the library knows can differ only after packets that could not be decoded.
            frame += known;
            gap = frame.saturating_sub(self.counted.unwrap_or(frame)).min(LONGEST_GAP);
            frame -= gap;
        } else {
            match &mut self.decoder {
                Some(decoder) if same => decoder.reset(),
                slot => *slot = Some(decoder(&rendition.init)?),
            }
            let gain_db = rendition.init.output_gain_db();
            self.factor = (gain_db != 0.0).then(|| 10f32.powf(gain_db / 20.0));
            self.rendition = Some(rendition.clone());
            self.usual = rendition.init.longest_packet.into();
            let mut chewed = Chewed::Bad;
            for packet in &segment.preroll {
                // Errors are normal here: the reservoir is not full yet. A panic shows again in the body.
                chewed = self.chew(packet);
            }
            if let Chewed::Frames(n) = chewed
                && lead
                && from + rendition.delay <= frame
            {
                frame = frame.saturating_sub(n);
                from = frame.saturating_sub(rendition.delay);
                heard = std::mem::take(&mut self.pcm);
            }
        }
        let body = segment.body.len() as u64;
        let tail = if piece.last { 0 } else { segment.tail.len() };
        self.next_packet = Some(segment.first_packet + body + tail as u64);
        let lengths = segment.preroll.iter().chain(&segment.body).chain(&segment.tail).map(|p| p.len());
        let mut end = bytes.len() - lengths.sum::<usize>();
        let mut left = Vec::with_capacity(segment.preroll.len() + segment.body.len() + tail);
        for packet in segment.preroll.iter().chain(&segment.body).chain(&segment.tail[..tail]) {
            left.push((end, end + packet.len()));
            end += packet.len();
        }
        left.drain(..segment.preroll.len() + if joined { ahead as usize } else { 0 });
        left.reverse();
        let total = left.len() - tail;
        self.piece = Some(Loaded {
            bytes,
            left,
            tail,
            ended: false,
            lead: heard,
            frame,
            from,
            to: rendition.frames,
            delay: rendition.delay,
            channels,
            gap,
            good: false,
            total,
        });
        Ok(joined)
    }

    /// Forgets what is loaded, and where it was: what comes next begins afresh.
    pub fn unload(&mut self) {
        self.piece = None;
        self.next_packet = None;
    }

    /// Whether a piece is loaded that is not at its end, or at that of its tail.
    pub const fn is_loaded(&self) -> bool {
        self.piece.is_some()
    }

    /// Whether any frame was given of what is loaded, or was last.
    pub const fn has_given(&self) -> bool {
        self.given
    }

    /// Decodes the next packet of what is loaded. A block may be empty. `None`: nothing is loaded.
    ///
    /// # Errors
    /// A segment of which not one packet could be decoded: no block of it had a frame. The third panic of a decoder in one
    /// rendition.
    pub fn next_block(&mut self) -> Option<Result<Block<'_>, Undecodable>> {
        let mut p = self.piece.take()?;
        let mut tail = false;
        let frames = if p.left.len() == p.tail && !p.ended {
            // All of the body was the tail before.
            self.pcm.clear();
            p.bring_forward(&mut self.pcm)
        } else if let Some((start, end)) = p.left.pop() {
            tail = p.left.len() < p.tail;
            match self.chew(&p.bytes[start..end]) {
                Chewed::Frames(n) => {
                    p.good = true;
                    if n > 0 {
                        self.usual = n;
                    }
                    n + p.bring_forward(&mut self.pcm)
                }
                Chewed::Panicked if self.panics >= PANICS => {
                    return Some(Err(Undecodable("the decoder panicked three times")));
                }
                Chewed::Panicked | Chewed::Bad => {
                    p.gap += self.usual;
                    self.pcm.clear();
                    if p.good || tail { p.bring_forward(&mut self.pcm) } else { 0 }
                }
            }
        } else {
            0
        };
        let last = p.left.len() == p.tail && !p.ended;
        p.ended |= last;
        if last && !p.good && p.total > 0 {
            return Some(Err(Undecodable("no packet of a segment could be decoded")));
        }
        // Audible = after the delay, from the frame that is wanted, and not beyond the end.
        let first = (p.delay + p.from).clamp(p.frame, p.frame + frames);
        let end = (p.delay + p.to).clamp(first, p.frame + frames);
        let range = (first - p.frame) as usize * p.channels..(end - p.frame) as usize * p.channels;
        let at = first.saturating_sub(p.delay);
        p.frame += frames;
        self.counted = Some(p.frame);
        if tail {
            self.ahead = (self.ahead.0 + 1, self.ahead.1 + frames);
        }
        let heard = &self.pcm[range];
        self.given |= !heard.is_empty();
        let channels = p.channels;
        if !p.left.is_empty() {
            self.piece = Some(p);
        }
        let frames = if channels == 2 {
            heard
        } else {
            self.stereo.clear();
            self.stereo.extend(heard.iter().flat_map(|&x| [x, x]));
            &self.stereo
        };
        Some(Ok(Block { frames, at, last, tail }))
    }

    /// Decodes one packet into `pcm`, untrimmed.
    fn chew(&mut self, packet: &[u8]) -> Chewed {
        if let (None, Some(rendition)) = (&self.decoder, &self.rendition) {
            self.decoder = decoder(&rendition.init).ok();
        }
        let Some(decoder) = &mut self.decoder else { return Chewed::Bad };
        let pcm = &mut self.pcm;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let packet = PacketRef::new(0, Timestamp::new(0), Duration::ZERO, packet);
            let buffer = decoder.decode_ref(&packet)?;
            buffer.copy_to_vec_interleaved(pcm);
            Ok::<u64, Error>(buffer.frames() as u64)
        }));
        match caught {
            Ok(Ok(n)) => {
                if let Some(factor) = self.factor {
                    self.pcm.iter_mut().for_each(|x| *x *= factor);
                }
                Chewed::Frames(n)
            }
            Ok(Err(_)) => Chewed::Bad,
            Err(_) => {
                // What a panic leaves behind is not to be trusted: a fresh decoder for the next packet.
                self.decoder = None;
                self.panics += 1;
                Chewed::Panicked
            }
        }
    }
}

impl Loaded {
    /// Puts what was held back before what is in `pcm`; how many frames that was.
    fn bring_forward(&mut self, pcm: &mut Vec<f32>) -> u64 {
        let silence = std::mem::take(&mut self.gap) as usize * self.channels;
        if silence == 0 && self.lead.is_empty() {
            return 0;
        }
        let mut before = std::mem::take(&mut self.lead);
        before.resize(before.len() + silence, 0.0);
        let frames = before.len() / self.channels;
        before.append(pcm);
        *pcm = before;
        frames as u64
    }
}

enum Chewed {
    Frames(u64),
    Bad,
    Panicked,
}

/// What the samples of an init's decoder are, before gain and conversion.
pub fn content(init: &Init) -> Content {
    if init.bits == 0 { Content::Float } else { Content::Integer(init.bits) }
}

fn decoder(init: &Init) -> Result<Box<dyn AudioDecoder>, Undecodable> {
    let mut parameters = AudioCodecParameters::new();
    parameters.for_codec(match init.codec {
        Codec::Flac => CODEC_ID_FLAC,
        Codec::Mp3 => CODEC_ID_MP3,
        Codec::Vorbis => CODEC_ID_VORBIS,
        Codec::Opus => CODEC_ID_OPUS,
        Codec::Aac => CODEC_ID_AAC,
    });
    parameters.sample_rate = Some(init.rate);
    parameters.channels =
        Some(if init.channels == 1 { layouts::CHANNEL_LAYOUT_MONO } else { layouts::CHANNEL_LAYOUT_STEREO });
    parameters.bits_per_sample = (init.bits > 0).then_some(init.bits.into());
    parameters.bits_per_coded_sample = (init.coded_bits > 0).then_some(init.coded_bits.into());
    parameters.max_frames_per_packet = Some(init.longest_packet.into());
    if !init.extra.is_empty() {
        let mut extra = init.extra.clone();
        if init.codec == Codec::Opus
            && let Some(pre_skip) = extra.get_mut(10..12)
        {
            pre_skip.fill(0); // the adapter would trim it by itself, from whatever packet comes first
        }
        parameters.extra_data = Some(extra.into());
    }
    let made =
        catch_unwind(AssertUnwindSafe(|| CODECS.make_audio_decoder(&parameters, &AudioDecoderOptions::default())));
    match made {
        Ok(Ok(decoder)) => Ok(decoder),
        Ok(Err(Error::Unsupported(why) | Error::DecodeError(why))) => Err(Undecodable(why)),
        Ok(Err(_)) => Err(Undecodable("no decoder takes these parameters")),
        Err(_) => Err(Undecodable("the decoder panicked at its parameters")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use jukebox_core::library::{Digest, Gain, RenditionName, SegmentRef};
    use jukebox_core::time::Span;
    use symphonia::core::audio::GenericAudioBufferRef;
    use symphonia::core::codecs::CodecInfo;
    use symphonia::core::codecs::audio::FinalizeResult;

    use super::*;

    /// A piece of two packets that mean nothing, with its segment.
    pub(crate) fn piece(seq: u64, generation: u32, entry: u32) -> (Piece, Vec<u8>) {
        let (codec, rate, channels) = (Codec::Mp3, 44_100, 2);
        let init = Init { codec, rate, channels, bits: 0, coded_bits: 0, longest_packet: 1_152, extra: vec![] };
        let body: Vec<&[u8]> = vec![&[1; 50], &[2; 50]];
        let first_frame = seq * 2 * 1_152;
        let bytes = Segment { first_packet: seq * 2, first_frame, preroll: vec![], body, tail: vec![] }.encode();
        let (length, digest) = (bytes.len() as u32, Digest::of(&bytes));
        let (name, object) = (RenditionName::Original, Digest::of(b"the whole"));
        let (frames, size) = (1_000_000, 0);
        let rendition =
            Arc::new(Rendition { name, init, delay: 0, frames, true_peak: -1.0, size, object, index: vec![] });
        let segment = SegmentRef { length, first_frame, digest };
        let (entry, gain, overlap) = (EntryId(entry), Gain(0.0), Span(0));
        let piece = Piece {
            seq,
            generation,
            entry,
            rendition,
            segment,
            from: 0,
            gain,
            original_rate: rate,
            last: false,
            overlap,
        };
        (piece, bytes)
    }

    /// A decoder that panics at every packet.
    struct Bomb(Box<dyn AudioDecoder>);

    impl AudioDecoder for Bomb {
        fn reset(&mut self) {}
        fn codec_info(&self) -> &CodecInfo {
            self.0.codec_info()
        }
        fn codec_params(&self) -> &AudioCodecParameters {
            self.0.codec_params()
        }
        fn decode_ref(&mut self, _: &PacketRef<'_>) -> Result<GenericAudioBufferRef<'_>, Error> {
            panic!("a bomb in a test");
        }
        fn finalize(&mut self) -> FinalizeResult {
            FinalizeResult::default()
        }
        fn last_decoded(&self) -> GenericAudioBufferRef<'_> {
            self.0.last_decoded()
        }
    }

    /// Loads a piece for a decoder that panics.
    fn load_bomb(deck: &mut Deck, seq: u64, entry: u32) -> Result<(), Undecodable> {
        let (piece, bytes) = piece(seq, 0, entry);
        deck.load(bytes, &piece, false)?;
        deck.decoder = deck.decoder.take().map(|d| Box::new(Bomb(d)) as Box<dyn AudioDecoder>);
        Ok(())
    }

    #[test]
    fn a_segment_without_a_good_packet_gives_nothing_and_the_third_panic_ends_the_rendition() {
        let mut deck = Deck::default();
        for entry in 1..=2 {
            for seq in 0..2 {
                load_bomb(&mut deck, seq, entry).unwrap();
                let blocks: Vec<_> =
                    std::iter::from_fn(|| deck.next_block().map(|b| b.map(|b| b.frames.len()))).collect();
                assert_eq!(blocks, [Ok(0), Err(Undecodable("no packet of a segment could be decoded"))]);
                assert!(!deck.is_loaded());
            }
            load_bomb(&mut deck, 2, entry).unwrap();
            let third = Undecodable("the decoder panicked three times");
            assert_eq!(deck.next_block().map(|b| b.map(|b| b.frames.len())), Some(Err(third)));
            assert_eq!(load_bomb(&mut deck, 3, entry), Err(Undecodable("the decoder panicked three times")));
        }
    }
}
