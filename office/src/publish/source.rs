//! Source: a music file, opened. What its container says, its packets, and what they decode to.
//!
//! Containers are parsed here and nowhere else: the player gets packets and an [`Init`]. Trims are never left to the
//! decoder; `delay` and `padding` are told, and one place (`track`) cuts. Packets of FLAC, MP3, Vorbis, Opus and AAC-LC are
//! kept; what else decodes here is converted (`convert`), and what does not, by ffmpeg (`outside`).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek};
use std::path::Path;
use std::sync::OnceLock;

use jukebox_core::library::{Codec, Init, TrackId, encode};
use sha2::{Digest as _, Sha256};
use symphonia::core::audio::{Channels, GenericAudioBufferRef as Sound, layouts};
use symphonia::core::codecs::audio::well_known as codecs;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};

use super::container::{self, Mp4};
use super::convert::Convert;
use super::outside::{self, Outside};
use super::tags::{self, Tags};

/// Most bytes of tags and covers that a file may have: they are read into memory.
pub const MAX_TAGS: u64 = 64 << 20;
/// Damaged places that a demuxer may report before the file is given up.
const MAX_FAULTS: u32 = 1_000;
/// Most frames of delay or padding: padding is held in memory, and players refuse more delay.
const MAX_TRIM: u64 = 1 << 20;
/// Packets that are looked at before it is said what a file is, and how many of ten must look like HE-AAC.
const LOOK: usize = 50;
const SBR_OF_TEN: usize = 9;

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
    /// Music that neither we nor ffmpeg decode.
    #[error("is {0}, which is taken where ffmpeg can decode it: install ffmpeg, or convert it to FLAC")]
    Format(String),
    /// Encrypted for one shop's own players.
    #[error("is protected (DRM): get it without, from the shop or the disc")]
    Protected,
    /// More than stereo, and nobody knows where which channel belongs.
    #[error("has {0} channels that cannot be mixed: mix it down (`ffmpeg -i IN -ac 2 OUT.flac`)")]
    Channels(usize),
    /// A rate that no player plays.
    #[error("has {0} frames a second: convert it to 8,000 to 384,000 (`ffmpeg -i IN -ar 48000 OUT.flac`)")]
    Rate(u32),
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
    /// Decoder parameters of the rendition that is made of it.
    pub init: Init,
    /// Decoded frames before the first that is to be heard.
    pub delay: u64,
    /// Decoded frames after the last that is to be heard.
    pub padding: u64,
    /// Decoded frames that the container speaks of, if it is to be believed.
    pub promised: Option<u64>,
    /// What is known of the music.
    pub tags: Tags,
    /// What is done to its sound, for people.
    pub note: Option<String>,
    /// Frames of packets that could not be decoded: they count as silence.
    pub lost: u64,
    faults: u32,
    stream: Option<[u8; 4]>,
    /// Packets that were looked at before their turn.
    early: VecDeque<Vec<u8>>,
    /// Frames of the first packet, as the container says.
    first_block: Option<u64>,
    convert: Option<Convert>,
    /// Decoded frames so far, and how many are wanted.
    decoded: u64,
    wanted: u64,
    /// Factor that the header of an Opus file asks for.
    gain: f32,
    name: Sha256,
    pcm: Vec<f32>,
}

/// A packet and what it decodes to.
pub struct Decoded<'a> {
    /// As it is in the file, or made of it.
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
        let mp4 = container::mp4(&mut file);
        file.rewind().map_err(read)?;
        let tagged = mp4.map_or_else(|| container::tag_bytes(&mut file), |m| Ok(m.moov)).map_err(read)?;
        if tagged > MAX_TAGS {
            return Err(Unusable::Tags(tagged >> 20));
        }
        if mp4.is_some_and(|m| m.protected) {
            return Err(Unusable::Protected);
        }
        let id3 = container::wav_id3(&mut file).map_err(read)?;
        file.rewind().map_err(read)?;
        let stream = MediaSourceStream::new(Box::new(file), Default::default());
        let mut source = match Self::of(stream, mp4, None) {
            Err(Unusable::Format(what)) => Self::outside(path, what),
            Err(Unusable::NotMusic(_)) if outside::may_know(path) => Self::outside(path, "of a rare kind".into()),
            opened => opened,
        }?;
        if let Some(id3) = id3 {
            tags::add_id3(&mut source.tags, id3);
        }
        Ok(source)
    }

    /// Opens what ffmpeg makes of a file.
    fn outside(path: &Path, what: String) -> Result<Self, Unusable> {
        if !outside::is_there() {
            return Err(Unusable::Format(what));
        }
        let sound = Outside::open(path).map_err(|e| Unusable::Read(e.to_string()))?;
        let stream = MediaSourceStream::new(Box::new(sound), Default::default());
        let note = format!("is {what}: converted to FLAC");
        let mut source = Self::of(stream, None, Some(note)).map_err(|e| match e {
            Unusable::NotMusic(_) => Unusable::NotMusic(format!("it is {what}, and ffmpeg finds no sound in it")),
            e => e,
        })?;
        // ffmpeg passes the words on, but not the picture.
        source.tags.picture = File::open(path).ok().and_then(tags::picture);
        Ok(source)
    }

    /// `converted`: what is said of a file whose sound is not its own packets'.
    fn of(stream: MediaSourceStream<'static>, mp4: Option<Mp4>, converted: Option<String>) -> Result<Self, Unusable> {
        // No hint: a file is what it holds, not what it is called.
        let mut format = symphonia::default::get_probe()
            .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
            .map_err(|e| Unusable::NotMusic(plain(&e)))?;
        let tags = tags::read(format.metadata());
        let track = format.default_track(TrackType::Audio).ok_or(Unusable::NotMusic("no sound in it".into()))?.clone();
        let params = track.codec_params.as_ref().and_then(|p| p.audio());
        let mut params = params.ok_or(Unusable::NotMusic("no codec named".into()))?.clone();
        let (mut delay, mut padding) = (u64::from(track.delay.unwrap_or(0)), u64::from(track.padding.unwrap_or(0)));
        let mut gain = 1.0;
        if params.codec == codecs::CODEC_ID_OPUS
            && let Some(head) = &mut params.extra_data
            && let Some(pre_skip) = head.get_mut(10..12)
        {
            // The adapter would trim it by itself, from whatever packet comes first.
            pre_skip.fill(0);
        }
        let what = || Unusable::Format(name_of_codec(&params));
        let made = registry().make_audio_decoder(&params, &AudioDecoderOptions::default());
        let decoder =
            made.map_err(|e| if let Error::Unsupported(_) = e { what() } else { Unusable::NotMusic(plain(&e)) })?;
        // A container may know less than the codec's own header.
        let params = if params.codec == codecs::CODEC_ID_AAC { decoder.codec_params().clone() } else { params };
        let channels = params.channels.clone().unwrap_or(Channels::Discrete(0));
        let kept = kept(&params).filter(|_| channels.count() <= 2 && converted.is_none());
        let mut init = init_of(&params, kept.unwrap_or(Codec::Flac))?;
        if init.codec == Codec::Opus {
            gain = 10f32.powf(init.output_gain_db() / 20.0);
        }
        let mut source = Self {
            format,
            decoder,
            track: track.id,
            init: init.clone(),
            delay: 0,
            padding: 0,
            promised: None,
            tags,
            note: converted.clone(),
            lost: 0,
            faults: 0,
            stream: None,
            early: VecDeque::new(),
            first_block: None,
            convert: None,
            decoded: 0,
            wanted: u64::MAX,
            gain,
            name: Sha256::new(),
            pcm: Vec::new(),
        };
        if kept.is_none() {
            let bits = source.look_bits(&params)?;
            let convert = Convert::new(init.rate, &channels, bits)?;
            init = convert.init.clone();
            source.note = converted.or_else(|| convert.note.clone());
            source.name = convert.name();
            source.convert = Some(convert);
        } else {
            source.name = name_of(&init);
        }
        if kept == Some(Codec::Aac) {
            source.look_for_sbr()?;
        }
        if params.codec == codecs::CODEC_ID_VORBIS {
            // The first packet only primes the decoder; the container counts it as frames.
            delay = delay.saturating_sub(source.look_at_first()?);
        }
        // Granules of Opus count the delay (RFC 7845, section 4.3).
        let ahead = if params.codec == codecs::CODEC_ID_OPUS { 0 } else { delay };
        source.promised = promised(&init, &track).map(|n| n + ahead + padding);
        if let (Some(end), None, true) = (source.promised, track.padding, source.convert.is_some()) {
            // Ogg does not always say how much of the last packets is meant, but where the music ends.
            source.wanted = end;
        }
        if let Some(mp4) = mp4.filter(|m| m.packets > 0) {
            let (at, length) = mp4.edit.unwrap_or((0, None));
            let whole = if kept == Some(Codec::Aac) { mp4.packets * 1_024 } else { mp4.length };
            // The last packet may be meant to be shorter than it decodes.
            let end = length.map_or(whole.min(mp4.length), |l| whole.min(at.saturating_add(l)));
            delay = at;
            source.wanted = end;
            padding = if kept == Some(Codec::Aac) { end.next_multiple_of(1_024) - end } else { 0 };
            source.promised = Some(end + padding);
        }
        if delay > MAX_TRIM {
            return Err(Unusable::Cut(format!("it begins {} s within its sound", delay / u64::from(init.rate))));
        }
        source.padding = if padding > MAX_TRIM { 0 } else { padding };
        (source.init, source.delay) = (init, delay);
        Ok(source)
    }

    /// Bits of a decoded sample, 0 for float: only some containers say.
    fn look_bits(&mut self, params: &AudioCodecParameters) -> Result<u8, Unusable> {
        // ALAC decodes to 32 bits, of which its own header says how many are meant.
        let alac = params.extra_data.as_ref().filter(|_| params.codec == codecs::CODEC_ID_ALAC).and_then(|e| e.get(5));
        let told = alac.copied().unwrap_or(params.bits_per_sample.unwrap_or(0).min(32) as u8).min(32);
        if kept(params).is_some_and(|c| c != Codec::Flac) {
            return Ok(0);
        }
        let packet = self.raw()?.ok_or(Unusable::Silent)?;
        let sound = self.decoder.decode_ref(&PacketRef::new(0, Timestamp::new(0), Duration::ZERO, &packet));
        let bits = match sound.map_err(|e| Unusable::NotMusic(plain(&e)))? {
            Sound::U8(_) | Sound::S8(_) => 8,
            Sound::U16(_) | Sound::S16(_) => 16,
            Sound::F32(_) | Sound::F64(_) => 0,
            Sound::U24(_) | Sound::S24(_) => {
                if told == 0 {
                    24
                } else {
                    told.min(24)
                }
            }
            Sound::U32(_) | Sound::S32(_) => {
                if told == 0 {
                    32
                } else {
                    told
                }
            }
        };
        self.decoder.reset();
        self.early.push_front(packet);
        Ok(bits)
    }

    /// How long the container says that the first packet is, in frames.
    fn look_at_first(&mut self) -> Result<u64, Unusable> {
        if self.first_block.is_none() {
            let packet = self.raw()?.ok_or(Unusable::Silent)?;
            self.early.push_front(packet);
        }
        Ok(self.first_block.unwrap_or(0))
    }

    /// HE-AAC that does not say so would be played at half its rate and without treble.
    fn look_for_sbr(&mut self) -> Result<(), Unusable> {
        let mut packets = VecDeque::new();
        while packets.len() < LOOK {
            let Some(packet) = self.raw()? else { break };
            packets.push_back(packet);
        }
        let sbr = packets.iter().filter(|p| container::ends_with_sbr(p)).count();
        if sbr > 0 && sbr * 10 >= packets.len() * SBR_OF_TEN {
            return Err(Unusable::Format("HE-AAC".into()));
        }
        self.early = packets;
        Ok(())
    }

    /// What the track is called: the first 80 bits of the digest of its sound.
    pub fn id(&self) -> TrackId {
        let mut id = TrackId::default();
        id.0.copy_from_slice(&self.name.clone().finalize()[..10]);
        id
    }

    /// The next packet, decoded; none at the end.
    pub fn next_packet(&mut self) -> Result<Option<Decoded<'_>>, Unusable> {
        if self.convert.is_some() {
            return self.next_converted();
        }
        let data = match self.early.pop_front() {
            Some(data) => data,
            None if self.decoded >= self.wanted => return Ok(None),
            None => match self.raw()? {
                Some(data) => data,
                None => return Ok(None),
            },
        };
        if self.decoded >= self.wanted {
            return Ok(None);
        }
        self.name.update(&data);
        let packet = PacketRef::new(0, Timestamp::new(0), Duration::ZERO, &data);
        let channels = usize::from(self.init.channels);
        let frames = match self.decoder.decode_ref(&packet) {
            Ok(sound) if sound.spec().channels().count() == channels => {
                sound.copy_to_vec_interleaved(&mut self.pcm);
                if self.gain != 1.0 {
                    self.pcm.iter_mut().for_each(|x| *x *= self.gain);
                }
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
        self.decoded += u64::from(frames);
        Ok(Some(Decoded { data, pcm: &self.pcm, frames }))
    }

    fn next_converted(&mut self) -> Result<Option<Decoded<'_>>, Unusable> {
        let mut ended = false;
        loop {
            let Some(convert) = &mut self.convert else { return Ok(None) };
            if ended || convert.is_full() {
                let Some(data) = convert.packet(ended, &mut self.pcm)? else { return Ok(None) };
                let frames = (self.pcm.len() / usize::from(self.init.channels)) as u32;
                return Ok(Some(Decoded { data, pcm: &self.pcm, frames }));
            }
            let data = match self.early.pop_front() {
                Some(data) => Some(data),
                None if self.decoded < self.wanted => self.raw()?,
                None => None,
            };
            let (Some(data), Some(convert)) = (data, &mut self.convert) else {
                ended = true;
                continue;
            };
            let packet = PacketRef::new(0, Timestamp::new(0), Duration::ZERO, &data);
            match self.decoder.decode_ref(&packet) {
                Ok(sound) if sound.spec().channels().count() == convert.channels() => {
                    let most = self.wanted - self.decoded;
                    self.decoded += convert.put(&sound, most, &mut self.name);
                }
                Ok(_) | Err(_) => {
                    let frames = u64::from(self.init.longest_packet).min(self.wanted - self.decoded);
                    convert.put_silence(frames);
                    self.lost += frames;
                    self.decoded += frames;
                }
            }
        }
    }

    /// The next packet of the file; none at the end.
    fn raw(&mut self) -> Result<Option<Vec<u8>>, Unusable> {
        loop {
            match self.format.next_packet() {
                Ok(Some(p)) if p.track_id == self.track && self.belongs(&p.data) => {
                    self.first_block.get_or_insert_with(|| p.block_dur().get());
                    return Ok(Some(p.data.into_vec()));
                }
                Ok(Some(_)) => {}
                // What follows in a chain of Ogg streams is other music.
                Ok(None) | Err(Error::ResetRequired) => return Ok(None),
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
        }
    }

    /// MPEG audio has no container: tags at the end may look like packets, but not of this stream.
    fn belongs(&mut self, data: &[u8]) -> bool {
        let (Codec::Mp3, Some(head)) = (self.init.codec, data.first_chunk::<4>()) else { return true };
        // Version and layer, without the bit for the CRC; the rate; whether mono.
        let kind = |h: &[u8; 4]| (h[1] | 1, h[2] & 0x0c, h[3] >> 6 == 3);
        kind(self.stream.get_or_insert(*head)) == kind(head)
    }
}

/// The hash that names a track, so far: codec, rate (u32), channels, bits, length of the extra data (u32), extra data, all
/// big-endian; the packets follow, or, where sound is converted, the samples. Comments are in none of it, so that a track
/// with new tags keeps its name.
pub fn name_of(init: &Init) -> Sha256 {
    let mut hash = Sha256::new();
    hash.update(encode(&init.codec));
    hash.update(init.rate.to_be_bytes());
    hash.update([init.channels, init.bits]);
    hash.update((init.extra.len() as u32).to_be_bytes());
    hash.update(&init.extra);
    hash
}

fn registry() -> &'static CodecRegistry {
    static REGISTRY: OnceLock<CodecRegistry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let mut r = CodecRegistry::new();
        symphonia::default::register_enabled_codecs(&mut r);
        r.register_audio_decoder::<symphonia_adapter_libopus::OpusDecoder>();
        r
    })
}

/// A decoder that never trims, made from what the library says of it and from nothing else. The gain that an Opus header
/// asks for is not applied.
pub fn decoder(init: &Init) -> Result<Box<dyn AudioDecoder>, Error> {
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
    registry().make_audio_decoder(&params, &AudioDecoderOptions::default())
}

/// The codec, if its packets are kept as they are.
fn kept(params: &AudioCodecParameters) -> Option<Codec> {
    match params.codec {
        codecs::CODEC_ID_FLAC if params.bits_per_sample.is_none_or(|b| b <= 24) => Some(Codec::Flac),
        codecs::CODEC_ID_MP3 => Some(Codec::Mp3),
        codecs::CODEC_ID_VORBIS => Some(Codec::Vorbis),
        codecs::CODEC_ID_OPUS => Some(Codec::Opus),
        codecs::CODEC_ID_AAC => Some(Codec::Aac),
        _ => None,
    }
}

fn name_of_codec(params: &AudioCodecParameters) -> String {
    match params.codec {
        codecs::CODEC_ID_AAC => "AAC of another kind than LC (HE-AAC, surround)",
        codecs::CODEC_ID_OPUS => "Opus with more than two channels",
        codecs::CODEC_ID_VORBIS => "Vorbis of a rare kind",
        codecs::CODEC_ID_MP1 | codecs::CODEC_ID_MP2 => "MPEG audio of layer I or II",
        codecs::CODEC_ID_WAVPACK => "WavPack",
        codecs::CODEC_ID_AC3 | codecs::CODEC_ID_EAC3 => "Dolby Digital",
        codecs::CODEC_ID_MONKEYS_AUDIO => "Monkey's Audio",
        _ => "in a codec of a rare kind",
    }
    .into()
}

/// What a decoder of `params` is told; `codec` is that of the rendition.
fn init_of(params: &AudioCodecParameters, codec: Codec) -> Result<Init, Unusable> {
    let rate = params.sample_rate.unwrap_or(0);
    if !(8_000..=384_000).contains(&rate) {
        return Err(Unusable::Rate(rate));
    }
    let channels = params.channels.as_ref().map_or(0, |c| c.count());
    if channels == 0 {
        return Err(Unusable::NotMusic("no channels in it".into()));
    }
    let most = params.max_frames_per_packet;
    let longest_packet = match codec {
        // ISO/IEC 11172-3 (32 kHz and above) and 13818-3 (half as long).
        Codec::Mp3 if rate >= 32_000 => 1_152,
        Codec::Mp3 => 576,
        Codec::Aac => 1_024,
        // Of 120 ms that a packet may have (RFC 6716, section 3.2) nearly all have 20.
        Codec::Opus => 960,
        Codec::Flac | Codec::Vorbis => most.unwrap_or(8_192).clamp(1, 1 << 16) as u32,
    };
    let bits = if codec == Codec::Flac { params.bits_per_sample.unwrap_or(0) } else { 0 };
    Ok(Init {
        codec,
        rate,
        channels: channels.min(255) as u8,
        bits: bits.min(32) as u8,
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
