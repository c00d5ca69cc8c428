//! Source: a music file, opened. What its container says, its packets, and what they decode to.
//!
//! Containers are parsed here and nowhere else: the player gets packets and an [`Init`]. Trims are never left to the
//! decoder; `delay` and `padding` are told, and one place (`track`) cuts. A further format joins by a line in [`codec_of`]
//! and, where its container lies about delay, one in [`Source::open`].

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::OnceLock;

use jukebox_core::library::{Codec, Init};
use symphonia::core::audio::layouts;
use symphonia::core::codecs::audio::well_known as codecs;
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};

use super::tags::{self, Tags};

/// Most bytes of tags and covers that a file may have: they are read into memory.
const MAX_TAGS: u64 = 64 << 20;
/// Damaged places that a demuxer may report before the file is given up.
const MAX_FAULTS: u32 = 1_000;

/// Why a file is not in the library: what is wrong and what helps, in one line.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The system refused.
    #[error("cannot be read ({0}): check the disk and the permissions")]
    Read(String),
    /// Nothing in it.
    #[error("is empty: copy it again")]
    Empty,
    /// Not what its name says.
    #[error("is not music, or damaged at its start ({0}): copy it again, or remove it")]
    NotMusic(String),
    /// Music that this version does not take.
    #[error("{0} is not taken yet: convert it to FLAC (`ffmpeg -i IN OUT.flac`)")]
    Format(String),
    /// More than stereo.
    #[error("has {0} channels: mix it down (`ffmpeg -i IN -ac 2 OUT.flac`)")]
    Channels(usize),
    /// A rate that no player plays.
    #[error("has {0} frames a second: convert it to 8,000 to 384,000 (`ffmpeg -i IN -ar 48000 OUT.flac`)")]
    Rate(u32),
    /// Samples of more than 24 bits.
    #[error("has {0}-bit samples: convert it to 24 (`ffmpeg -i IN -sample_fmt s32 -bits_per_raw_sample 24 OUT.flac`)")]
    Bits(u32),
    /// Tags and covers beyond all bounds.
    #[error("has {0} MB of tags and covers: remove the pictures (`ffmpeg -i IN -map 0:a -c copy OUT`)")]
    Tags(u64),
    /// Ends too early, or has holes.
    #[error("is damaged: {have} of {promised} s can be played; copy or rip it again")]
    Damaged {
        /// Seconds that decode.
        have: u64,
        /// Seconds that the file speaks of.
        promised: u64,
    },
    /// No frame that can be heard.
    #[error("holds no sound: remove it, or copy it again")]
    Silent,
    /// Packets beyond what a segment may hold.
    #[error("cannot be cut ({0}): encode it again (`ffmpeg -i IN OUT.flac`)")]
    Cut(String),
    /// The decoder panicked.
    #[error("made the decoder fail ({0}): encode it again, or remove it")]
    Panic(String),
    /// An encoder or a meter refused.
    #[error("cannot be encoded ({0}): please report this file")]
    Encode(String),
    /// The library's disk refused: not the file's fault.
    #[error("cannot be stored ({0}): check the library's disk")]
    Store(io::Error),
}

/// A music file, opened.
pub struct Source {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    /// Decoder parameters.
    pub init: Init,
    /// Decoded frames before the first that is to be heard.
    pub delay: u64,
    /// Decoded frames after the last that is to be heard.
    pub padding: u64,
    /// Decoded frames that the container speaks of, if it is to be believed.
    pub promised: Option<u64>,
    /// What is known of the music.
    pub tags: Tags,
    /// Frames of packets that could not be decoded: they count as silence.
    pub lost: u64,
    faults: u32,
    stream: Option<[u8; 4]>,
    pcm: Vec<f32>,
}

/// A packet and what it decodes to.
pub struct Decoded<'a> {
    /// As it is in the file.
    pub data: Vec<u8>,
    /// Interleaved samples, untrimmed.
    pub pcm: &'a [f32],
    /// How many frames they are.
    pub frames: u32,
}

impl Source {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, Unusable> {
        let read = |e: io::Error| Unusable::Read(e.to_string());
        let mut file = File::open(path).map_err(read)?;
        if file.metadata().map_err(read)?.len() == 0 {
            return Err(Unusable::Empty);
        }
        let tagged = tag_bytes(&mut file).map_err(read)?;
        if tagged > MAX_TAGS {
            return Err(Unusable::Tags(tagged >> 20));
        }
        file.rewind().map_err(read)?;
        let stream = MediaSourceStream::new(Box::new(file), Default::default());
        // No hint: a file is what it holds, not what it is called.
        let mut format = symphonia::default::get_probe()
            .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
            .map_err(|e| Unusable::NotMusic(plain(&e)))?;
        let tags = tags::read(format.metadata());
        let track = format.default_track(TrackType::Audio).ok_or(Unusable::NotMusic("no sound in it".into()))?.clone();
        let params = track.codec_params.as_ref().and_then(|p| p.audio());
        let init = init_of(params.ok_or(Unusable::NotMusic("no codec named".into()))?)?;
        let decoder = decoder(&init).map_err(|e| Unusable::NotMusic(plain(&e)))?;
        let (delay, padding) = (u64::from(track.delay.unwrap_or(0)), u64::from(track.padding.unwrap_or(0)));
        let promised = promised(&init, &track).map(|n| n + delay + padding);
        Ok(Self {
            format,
            decoder,
            track: track.id,
            init,
            delay,
            padding,
            promised,
            tags,
            lost: 0,
            faults: 0,
            stream: None,
            pcm: Vec::new(),
        })
    }

    /// The next packet, decoded; none at the end.
    pub fn next_packet(&mut self) -> Result<Option<Decoded<'_>>, Unusable> {
        let data = loop {
            match self.format.next_packet() {
                Ok(Some(p)) if p.track_id == self.track && self.belongs(&p.data) => break p.data.into_vec(),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                // Files that were cut short end like this: what is missing shows in the count of frames.
                Err(Error::IoError(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(Error::IoError(e)) => return Err(Unusable::Read(e.to_string())),
                Err(e) => {
                    self.faults += 1;
                    if self.faults > MAX_FAULTS {
                        return Err(Unusable::NotMusic(plain(&e)));
                    }
                }
            }
        };
        let packet = PacketRef::new(0, Timestamp::new(0), Duration::ZERO, &data);
        let channels = usize::from(self.init.channels);
        let frames = match self.decoder.decode_ref(&packet) {
            Ok(sound) if sound.spec().channels().count() == channels => {
                sound.copy_to_vec_interleaved(&mut self.pcm);
                sound.frames() as u32
            }
            // The player does the same: silence of the longest packet's length, so that all that follows is in its place.
            Ok(_) | Err(_) => {
                self.lost += u64::from(self.init.longest_packet);
                self.pcm.clear();
                self.pcm.resize(self.init.longest_packet as usize * channels, 0.0);
                self.init.longest_packet
            }
        };
        Ok(Some(Decoded { data, pcm: &self.pcm, frames }))
    }

    /// MPEG audio has no container: tags at the end may look like packets, but not of this stream.
    fn belongs(&mut self, data: &[u8]) -> bool {
        let (Codec::Mp3, Some(head)) = (self.init.codec, data.first_chunk::<4>()) else { return true };
        // Version and layer, without the bit for the CRC; the rate; whether mono.
        let kind = |h: &[u8; 4]| (h[1] | 1, h[2] & 0x0c, h[3] >> 6 == 3);
        kind(self.stream.get_or_insert(*head)) == kind(head)
    }
}

/// A decoder that never trims, made from what the library says of it and from nothing else.
pub fn decoder(init: &Init) -> Result<Box<dyn AudioDecoder>, Error> {
    static REGISTRY: OnceLock<CodecRegistry> = OnceLock::new();
    let registry = REGISTRY.get_or_init(|| {
        let mut r = CodecRegistry::new();
        symphonia::default::register_enabled_codecs(&mut r);
        r.register_audio_decoder::<symphonia_adapter_libopus::OpusDecoder>();
        r
    });
    let mut params = AudioCodecParameters::new();
    params.for_codec(match init.codec {
        Codec::Flac => codecs::CODEC_ID_FLAC,
        Codec::Mp3 => codecs::CODEC_ID_MP3,
        Codec::Vorbis => codecs::CODEC_ID_VORBIS,
        Codec::Opus => codecs::CODEC_ID_OPUS,
        Codec::Aac => codecs::CODEC_ID_AAC,
    });
    params.sample_rate = Some(init.rate);
    params.channels =
        Some(if init.channels == 1 { layouts::CHANNEL_LAYOUT_MONO } else { layouts::CHANNEL_LAYOUT_STEREO });
    params.bits_per_sample = (init.bits > 0).then_some(init.bits.into());
    params.bits_per_coded_sample = (init.coded_bits > 0).then_some(init.coded_bits.into());
    params.max_frames_per_packet = Some(init.longest_packet.into());
    params.extra_data = (!init.extra.is_empty()).then(|| init.extra.clone().into_boxed_slice());
    registry.make_audio_decoder(&params, &AudioDecoderOptions::default())
}

fn codec_of(id: AudioCodecId) -> Result<Codec, Unusable> {
    let name = match id {
        codecs::CODEC_ID_FLAC => return Ok(Codec::Flac),
        codecs::CODEC_ID_MP3 => return Ok(Codec::Mp3),
        codecs::CODEC_ID_VORBIS => "Vorbis",
        codecs::CODEC_ID_OPUS => "Opus",
        codecs::CODEC_ID_AAC => "AAC",
        codecs::CODEC_ID_MP1 | codecs::CODEC_ID_MP2 => "MPEG audio of layer I or II",
        _ => "this kind of sound (WAV, AIFF, ...)",
    };
    Err(Unusable::Format(name.into()))
}

fn init_of(params: &AudioCodecParameters) -> Result<Init, Unusable> {
    let codec = codec_of(params.codec)?;
    let rate = params.sample_rate.unwrap_or(0);
    if !(8_000..=384_000).contains(&rate) {
        return Err(Unusable::Rate(rate));
    }
    let channels = params.channels.as_ref().map_or(0, |c| c.count());
    if !(1..=2).contains(&channels) {
        return Err(Unusable::Channels(channels));
    }
    let bits = params.bits_per_sample.unwrap_or(0);
    if bits > 24 {
        return Err(Unusable::Bits(bits));
    }
    let longest_packet = match codec {
        // ISO/IEC 11172-3 (32 kHz and above) and 13818-3 (half as long).
        Codec::Mp3 if rate >= 32_000 => 1_152,
        Codec::Mp3 => 576,
        _ => params.max_frames_per_packet.unwrap_or(0).clamp(1, 1 << 16) as u32,
    };
    Ok(Init {
        codec,
        rate,
        channels: channels as u8,
        bits: if codec == Codec::Mp3 { 0 } else { bits as u8 },
        coded_bits: params.bits_per_coded_sample.unwrap_or(0).min(32) as u8,
        longest_packet,
        extra: params.extra_data.as_deref().map(<[u8]>::to_vec).unwrap_or_default(),
    })
}

/// Frames to be heard, if the container counted them; without a LAME tag symphonia only estimates for MP3.
fn promised(init: &Init, track: &Track) -> Option<u64> {
    let counted = init.codec != Codec::Mp3 || track.delay.is_some();
    track.num_frames.filter(|&n| counted && n > 0)
}

/// Bytes of tags and covers before the sound, from their headers (ID3v2.4, section 3.1; RFC 9639, section 8.1).
fn tag_bytes(file: &mut File) -> io::Result<u64> {
    let mut total = 0;
    let mut head = [0; 10];
    while file.read_exact(&mut head).is_ok() && head.starts_with(b"ID3") {
        let size = head[6..].iter().fold(0, |n, b| n << 7 | u64::from(b & 0x7f)) + 10;
        total += size;
        file.seek(SeekFrom::Start(total))?;
    }
    if head.starts_with(b"fLaC") {
        let mut at = total + 4;
        let mut block = [0; 4];
        loop {
            file.seek(SeekFrom::Start(at))?;
            if total > MAX_TAGS || file.read_exact(&mut block).is_err() {
                break;
            }
            let length = u64::from(u32::from_be_bytes(block) & 0xff_ffff) + 4;
            (at, total) = (at + length, total + length);
            if block[0] & 0x80 != 0 {
                break;
            }
        }
    }
    Ok(total)
}

/// An error of symphonia's without its prefix.
fn plain(e: &Error) -> String {
    match e {
        Error::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => "it ends too early".into(),
        Error::IoError(e) => e.to_string(),
        Error::DecodeError(why) | Error::Unsupported(why) | Error::LimitError(why) => {
            why.rsplit_once(": ").map_or(*why, |(_, why)| why).into()
        }
        e => e.to_string(),
    }
}
