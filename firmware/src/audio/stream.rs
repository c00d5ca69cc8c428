//! The small door for files: container, packets and decoder in one, for trying a machine and a DAC.
//!
//! Library music never comes through here: the office parses its containers. Delay and padding are trimmed by the decoder,
//! from what the container says.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use jukebox_board::output::Content;
use symphonia::core::audio::GenericAudioBufferRef as Samples;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::{MetadataOptions, StandardTag};

use super::deck::CODECS;

/// Why a file does not play.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It cannot be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// Of no format that is known here, or broken.
    #[error("no sound found: {0}; FLAC, MP3, Ogg Vorbis, Ogg Opus, AAC (ADTS) and WAV play")]
    Format(String),
    /// More than two channels.
    #[error("{0} channels; mono and stereo play")]
    Channels(usize),
    /// The file makes a decoder panic.
    #[error("the decoder panicked: the file is broken")]
    Panicked,
}

/// A file that is being decoded.
pub struct Stream {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    rate: u32,
    content: Content,
    frames: Option<u64>,
    pcm: Vec<f32>,
    stereo: Vec<f32>,
}

impl Stream {
    /// Opens a file and finds its sound.
    ///
    /// # Errors
    /// One line that says what is wrong, without the file's name.
    pub fn open(path: &Path) -> Result<Self, StreamError> {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(StreamError::Format("it is a folder".into()));
        }
        let mut hint = Hint::new();
        if let Some(extension) = path.extension().and_then(|e| e.to_str()) {
            hint.with_extension(extension);
        }
        let open = || {
            let source = MediaSourceStream::new(Box::new(file), MediaSourceStreamOptions::default());
            let (format, meta) = (FormatOptions::default(), MetadataOptions::default());
            let format = symphonia::default::get_probe().probe(&hint, source, format, meta)?;
            let track = format.default_track(TrackType::Audio).ok_or(Error::Unsupported("no audio track"))?;
            let parameters = track.codec_params.as_ref().and_then(|p| p.audio());
            let parameters = parameters.ok_or(Error::Unsupported("unknown codec"))?;
            let decoder = CODECS.make_audio_decoder(parameters, &AudioDecoderOptions::default())?;
            let rate = parameters.sample_rate.ok_or(Error::Unsupported("no sample rate"))?;
            let bits = parameters.bits_per_sample.unwrap_or(0).min(32) as u8;
            let content = if bits == 0 { Content::Float } else { Content::Integer(bits) };
            let channels = parameters.channels.as_ref().map_or(2, |c| c.count());
            let (track, frames) = (track.id, track.num_frames);
            let (pcm, stereo) = (vec![], vec![]);
            Ok((Self { format, decoder, track, rate, content, frames, pcm, stereo }, channels))
        };
        match guarded(open)? {
            (_, channels) if !(1..=2).contains(&channels) => Err(StreamError::Channels(channels)),
            (mut stream, _) => {
                stream.first()?;
                Ok(stream)
            }
        }
    }

    /// Frames a second.
    pub const fn rate(&self) -> u32 {
        self.rate
    }

    /// What its samples are.
    pub const fn content(&self) -> Content {
        self.content
    }

    /// Length, if the container says.
    pub fn seconds(&self) -> Option<u64> {
        self.frames.map(|n| n / u64::from(self.rate))
    }

    /// "Artist - Title", as far as it is tagged.
    pub fn title(&mut self) -> Option<String> {
        let mut metadata = self.format.metadata();
        let tags = &metadata.skip_to_latest()?.media.tags;
        let find = |pick: fn(&StandardTag) -> Option<&str>| tags.iter().find_map(|t| t.std.as_ref().and_then(pick));
        let title = find(|t| if let StandardTag::TrackTitle(s) = t { Some(s) } else { None })?;
        let artist = find(|t| if let StandardTag::Artist(s) = t { Some(s) } else { None });
        let text = artist.map_or_else(|| title.to_owned(), |a| format!("{a} - {title}"));
        Some(text.chars().filter(|c| !c.is_control()).collect())
    }

    /// The next frames, interleaved stereo; `None` at the end. A packet that cannot be decoded is left out.
    ///
    /// # Errors
    /// The file ends in mid-air, or the decoder panicked.
    pub fn next_block(&mut self) -> Result<Option<&[f32]>, StreamError> {
        if self.pcm.is_empty() && !self.decode()? {
            return Ok(None);
        }
        self.stereo.clear();
        std::mem::swap(&mut self.stereo, &mut self.pcm);
        Ok(Some(&self.stereo))
    }

    /// Decodes the first packets, so that a file without sound is told from one that plays.
    fn first(&mut self) -> Result<(), StreamError> {
        if self.decode()? { Ok(()) } else { Err(StreamError::Format("not one packet can be decoded".into())) }
    }

    /// Decodes up to the next frames, into `pcm`; whether there are any.
    fn decode(&mut self) -> Result<bool, StreamError> {
        let Self { format, decoder, track, content, pcm, .. } = self;
        guarded(|| {
            pcm.clear();
            while pcm.is_empty() {
                let Some(packet) = format.next_packet()? else { return Ok(false) };
                if packet.track_id != *track {
                    continue;
                }
                match decoder.decode(&packet) {
                    Ok(samples) => {
                        if matches!(samples, Samples::F32(_) | Samples::F64(_)) {
                            *content = Content::Float;
                        }
                        samples.copy_to_vec_interleaved(pcm);
                        if samples.spec().channels().count() == 1 {
                            let n = pcm.len();
                            pcm.resize(n * 2, 0.0);
                            (0..n).rev().for_each(|i| (pcm[2 * i], pcm[2 * i + 1]) = (pcm[i], pcm[i]));
                        }
                    }
                    Err(Error::DecodeError(_)) => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(true)
        })
    }
}

/// Hostile files make decoders panic: that costs the file, not the program.
fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, StreamError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(Error::IoError(e))) if e.kind() != std::io::ErrorKind::UnexpectedEof => Err(e.into()),
        Ok(Err(e)) => Err(StreamError::Format(e.to_string())),
        Err(_) => Err(StreamError::Panicked),
    }
}
