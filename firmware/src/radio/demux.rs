//! A station's bytes into packets on the tape: the container's part, on a thread of its own, because it waits for bytes.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Buf, Bytes};
use symphonia::core::codecs::audio::well_known::CODEC_ID_AAC;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions, ReadOnlySource};
use symphonia::core::meta::{MetadataOptions, StandardTag};
use tokio::sync::mpsc;

use super::{COMES, sbr};
use crate::audio::tape::{Form, Packet, Tape};

/// The thread's stack: containers are shallow, Vorbis headers a little deep.
pub(super) const STACK: usize = 256 << 10;

/// What is learned on the way.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// What it says it plays.
    Title(String),
    /// Enough has come to begin with.
    Enough,
    /// It is HE-AAC.
    HeAac,
    /// It is nothing that is understood.
    Noise,
    /// It has ended, or the tape is full.
    Ended,
}

/// Bytes as they come.
struct Source {
    come: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.come.blocking_recv() {
                Some(bytes) => self.rest = bytes,
                None => return Ok(0),
            }
        }
        let n = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}

/// Tapes what comes until it ends, and says how it ended.
pub(super) fn demux(come: mpsc::Receiver<Bytes>, mime: &str, tape: &Tape, tell: &dyn Fn(Heard)) {
    // Hostile bytes make demuxers panic: that costs the connection.
    let end = catch_unwind(AssertUnwindSafe(|| run(come, mime, tape, tell))).unwrap_or(Heard::Noise);
    tell(end);
}

fn run(come: mpsc::Receiver<Bytes>, mime: &str, tape: &Tape, tell: &dyn Fn(Heard)) -> Heard {
    let source = ReadOnlySource::new(Source { come, rest: Bytes::new() });
    let source = MediaSourceStream::new(Box::new(source), MediaSourceStreamOptions::default());
    let mut hint = Hint::new();
    hint.mime_type(mime);
    let probe = symphonia::default::get_probe();
    let mut format = match probe.probe(&hint, source, FormatOptions::default(), MetadataOptions::default()) {
        Ok(format) => format,
        Err(Error::IoError(_)) => return Heard::Ended,
        Err(_) => return Heard::Noise,
    };
    let mut follows = false;
    loop {
        match one_run(format.as_mut(), tape, tell, follows) {
            // Ogg begins anew where a station changes what it plays.
            Err(Error::ResetRequired) => follows = true,
            Ok(end) => return end,
            Err(_) => return Heard::Ended,
        }
    }
}

/// One run: the packets of one set of parameters.
fn one_run(format: &mut dyn FormatReader, tape: &Tape, tell: &dyn Fn(Heard), follows: bool) -> Result<Heard, Error> {
    let Some(track) = format.default_track(TrackType::Audio) else { return Ok(Heard::Noise) };
    let Some(parameters) = track.codec_params.as_ref().and_then(|p| p.audio()).cloned() else {
        return Ok(Heard::Noise);
    };
    let rate = parameters.sample_rate.unwrap_or(48_000);
    let (id, base) = (track.id, track.time_base);
    let aac = parameters.codec == CODEC_ID_AAC;
    if let Some(title) = title(format) {
        tell(Heard::Title(title));
    }
    let run = tape.begin(Form { parameters, rate }, follows);
    let (mut enough, mut looked, mut found) = (false, 0, 0);
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) if packet.track_id == id => packet,
            Ok(Some(_)) | Err(Error::DecodeError(_)) => continue,
            Ok(None) => break,
            Err(Error::ResetRequired) => return Err(Error::ResetRequired),
            Err(_) => break,
        };
        if aac && looked < sbr::LOOKED_AT {
            looked += 1;
            found += u32::from(sbr::has_sbr(&packet.data));
            if found >= sbr::BELIEVED {
                tape.end(run);
                return Ok(Heard::HeAac);
            }
        }
        let ticks = packet.dur.get();
        let frames = base.map_or(ticks, |b| {
            (u128::from(ticks) * u128::from(rate) * u128::from(b.numer.get()) / u128::from(b.denom.get())) as u64
        });
        if !tape.put(run, Packet { data: packet.data, frames }) {
            break;
        }
        if !enough && tape.level_of(run) >= COMES {
            enough = true;
            tell(Heard::Enough);
        }
    }
    tape.end(run);
    Ok(Heard::Ended)
}

/// `ARTIST - TITLE` of the tags, where a container has them.
fn title(format: &mut dyn FormatReader) -> Option<String> {
    let mut metadata = format.metadata();
    let tags = &metadata.skip_to_latest()?.media.tags;
    let find = |pick: fn(&StandardTag) -> Option<&str>| tags.iter().find_map(|t| t.std.as_ref().and_then(pick));
    let title = find(|t| if let StandardTag::TrackTitle(s) = t { Some(s) } else { None })?;
    let artist = find(|t| if let StandardTag::Artist(s) = t { Some(s) } else { None });
    Some(artist.map_or_else(|| title.to_owned(), |a| format!("{a} - {title}")))
}
