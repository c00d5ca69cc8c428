//! The office's half in small: files cut into segments; and the sound path with a virtual DAC at its end.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jukebox::audio::{Audio, Dac, Form, RateRule, Settings};
use jukebox_board::output::Device;
use jukebox_core::library::{
    CataloguePage, Codec, Digest, Gain, IndexPage, Init, MAX_OBJECT, ROOT, Record, Rendition, RenditionName, Root,
    SegmentRef,
};
use jukebox_core::segment::Segment;
use jukebox_core::sound::{EntryId, Heard, Order, PIECES_AHEAD, Piece, Report};
use jukebox_core::time::Span;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_FLAC, CODEC_ID_MP3};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoderOptions};
use symphonia::core::formats::{FormatOptions, TrackType, probe::Hint};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration as Ticks, Timestamp};

/// A track as the player gets it.
#[derive(Clone)]
pub struct Cut {
    pub rendition: Arc<Rendition>,
    pub segments: Vec<(SegmentRef, Vec<u8>)>,
}

/// Coded packets and what a container says of them.
pub struct Packets {
    pub init: Init,
    pub delay: u64,
    pub frames: u64,
    pub packets: Vec<Vec<u8>>,
    /// Decoded frames before each packet; one more than there are packets.
    pub starts: Vec<u64>,
}

impl Packets {
    /// Demuxes a FLAC or MP3 file.
    pub fn of(path: &Path) -> Self {
        let source = MediaSourceStream::new(Box::new(std::fs::File::open(path).unwrap()), Default::default());
        let (format, meta) = (FormatOptions::default(), MetadataOptions::default());
        let mut format = symphonia::default::get_probe().probe(&Hint::new(), source, format, meta).unwrap();
        let track = format.default_track(TrackType::Audio).unwrap();
        let parameters = track.codec_params.as_ref().unwrap().audio().unwrap().clone();
        let codec = match parameters.codec {
            CODEC_ID_FLAC => Codec::Flac,
            CODEC_ID_MP3 => Codec::Mp3,
            other => panic!("{other} is not used here"),
        };
        let mut bare = AudioCodecParameters::new();
        bare.for_codec(parameters.codec);
        (bare.sample_rate, bare.channels) = (parameters.sample_rate, parameters.channels.clone());
        (bare.extra_data, bare.bits_per_sample) = (parameters.extra_data.clone(), parameters.bits_per_sample);
        let codecs = symphonia::default::get_codecs();
        let mut decoder = codecs.make_audio_decoder(&bare, &AudioDecoderOptions::default()).unwrap();
        let (mut delay, mut padding, mut packets, mut starts, mut longest) = (0, 0, vec![], vec![0], 0);
        while let Some(p) = format.next_packet().unwrap() {
            let whole = PacketRef::new(0, Timestamp::new(0), Ticks::ZERO, &p.data);
            let n = decoder.decode_ref(&whole).map_or(p.block_dur().get(), |b| b.frames() as u64);
            delay += p.trim_start.get().min(n);
            padding += p.trim_end.get().min(n);
            longest = longest.max(n);
            starts.push(starts[starts.len() - 1] + n);
            packets.push(p.data.into_vec());
        }
        let init = Init {
            codec,
            rate: parameters.sample_rate.unwrap(),
            channels: parameters.channels.map_or(2, |c| c.count()) as u8,
            bits: if codec == Codec::Flac { parameters.bits_per_sample.unwrap_or(0) as u8 } else { 0 },
            coded_bits: parameters.bits_per_coded_sample.unwrap_or(0) as u8,
            longest_packet: longest as u32,
            extra: parameters.extra_data.map_or_else(Vec::new, Vec::from),
        };
        let frames = starts[starts.len() - 1] - delay - padding;
        Self { init, delay, frames, packets, starts }
    }

    /// Cuts before the packets `borders` (0 is meant too), with so many packets of pre-roll.
    pub fn cut(&self, borders: &[usize], preroll: usize) -> Cut {
        let all: Vec<usize> = [0].into_iter().chain(borders.iter().copied()).chain([self.packets.len()]).collect();
        let slices = |from: usize, to: usize| self.packets[from..to].iter().map(Vec::as_slice).collect();
        let segments: Vec<_> = all
            .windows(2)
            .map(|w| {
                let segment = Segment {
                    first_packet: w[0] as u64,
                    first_frame: self.starts[w[0]],
                    preroll: slices(w[0].saturating_sub(preroll), w[0]),
                    body: slices(w[0], w[1]),
                    tail: vec![],
                };
                let bytes = segment.encode();
                let (length, digest) = (bytes.len() as u32, Digest::of(&bytes));
                (SegmentRef { length, first_frame: self.starts[w[0]], digest }, bytes)
            })
            .collect();
        let joined: Vec<u8> = segments.iter().flat_map(|s| s.1.iter().copied()).collect();
        let rendition = Arc::new(Rendition {
            name: RenditionName::Original,
            init: self.init.clone(),
            delay: self.delay,
            frames: self.frames,
            true_peak: -1.0,
            size: joined.len() as u64,
            object: Digest::of(&joined),
            index: vec![],
        });
        Cut { rendition, segments }
    }

    /// Cuts about every half second.
    pub fn cut_often(&self, preroll: usize) -> Cut {
        let step = u64::from(self.init.rate) / 2;
        let borders: Vec<usize> =
            (1..self.packets.len()).filter(|&i| self.starts[i] / step != self.starts[i - 1] / step && i > 1).collect();
        self.cut(&borders, preroll)
    }
}

impl Cut {
    /// A rendition of the track of a library that is called so; of the only one.
    pub fn published(library: &Path, title: Option<&str>, name: RenditionName) -> Self {
        let object = |d: &Digest| std::fs::read(library.join(d.path())).unwrap();
        let root = Root::parse(&std::fs::read(library.join(ROOT)).unwrap()).unwrap();
        let rows = root.pages.iter().flat_map(|p| {
            let page = zstd::bulk::decompress(&object(&p.object), MAX_OBJECT).unwrap();
            CataloguePage::parse(&page).unwrap().rows
        });
        let row = rows.into_iter().find(|r| title.is_none_or(|t| r.title == t)).unwrap();
        let record = Record::parse(&object(&row.record)).unwrap();
        let rendition = record.rendition(name).unwrap().clone();
        let pages = rendition.index.iter().map(|i| IndexPage::parse(&object(&i.object)).unwrap());
        let refs: Vec<SegmentRef> = pages.flat_map(|p| p.segments().collect::<Vec<_>>()).collect();
        let whole = object(&rendition.object);
        let mut rest = &whole[..];
        let segments = refs.into_iter().map(|s| (s, rest.split_off(..s.length as usize).unwrap().to_vec())).collect();
        Self { rendition: Arc::new(rendition), segments }
    }

    /// Its pieces from a segment on; numbered from `seq`.
    pub fn pieces(&self, entry: u32, first: usize, seq: u64, generation: u32) -> Vec<Piece> {
        let count = self.segments.len();
        let piece = |(k, (segment, _)): (usize, &(SegmentRef, Vec<u8>))| Piece {
            seq: seq + (k - first) as u64,
            generation,
            entry: EntryId(entry),
            rendition: self.rendition.clone(),
            segment: *segment,
            from: 0,
            gain: Gain(0.0),
            original_rate: self.rendition.init.rate,
            last: k + 1 == count,
            overlap: Span(0),
        };
        self.segments.iter().enumerate().skip(first).map(piece).collect()
    }

    /// Audible frame at which a segment begins.
    pub fn begins(&self, segment: usize) -> usize {
        self.segments[segment].0.first_frame.saturating_sub(self.rendition.delay) as usize
    }
}

type Shelf = Arc<Mutex<HashMap<Digest, Vec<u8>>>>;

/// The sound path, a virtual DAC, and a shelf with segments.
pub struct Rig {
    pub audio: Audio,
    pub dac: Dac,
    pub reports: Receiver<Report>,
    pub shelf: Shelf,
    /// Told before the shelf is looked at.
    pub asked: Receiver<Digest>,
}

const DEADLINE: Duration = Duration::from_secs(20);

impl Rig {
    pub fn new(dac: Dac, rate: RateRule, cuts: &[&Cut]) -> Self {
        Self::with(&[&dac], rate, cuts)
    }

    /// With several DACs in order; `dac` is the first.
    pub fn with(dacs: &[&Dac], rate: RateRule, cuts: &[&Cut]) -> Self {
        let held = cuts.iter().flat_map(|c| c.segments.iter().map(|(s, b)| (s.digest, b.clone()))).collect();
        let shelf: Shelf = Arc::new(Mutex::new(held));
        let (tell, reports) = channel();
        let outputs = dacs.iter().map(|&d| Device::Virtual(d.clone())).collect();
        let settings = Settings { outputs, rate, period_ms: Some(10), start_ramp_ms: 0 };
        let (ask, asked) = channel();
        let from = shelf.clone();
        let read = move |d: &Digest| {
            let _ = ask.send(*d); // nobody asks any more
            from.lock().unwrap().get(d).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        let audio = Audio::start(settings, read, move |r| drop(tell.send(r))).unwrap();
        Self { audio, dac: dacs[0].clone(), reports, shelf, asked }
    }

    /// As fast as it can; what is played is kept.
    pub fn fast(form: Form, rate: RateRule, cuts: &[&Cut]) -> Self {
        Self::new(Dac::keeping(form, false, &[]), rate, cuts)
    }

    /// Gives pieces, as many ahead as may be, until all are in the ring. Returns other reports.
    pub fn give(&self, pieces: Vec<Piece>) -> Vec<Report> {
        let last = pieces.last().unwrap().seq;
        let mut waiting = pieces.into_iter();
        let mut other = vec![];
        waiting.by_ref().take(PIECES_AHEAD).for_each(|p| self.audio.order(Order::Play(p)));
        loop {
            match self.report() {
                Report::Decoded { seq } if seq == last => return other,
                Report::Decoded { .. } => waiting.by_ref().take(1).for_each(|p| self.audio.order(Order::Play(p))),
                report => other.push(report),
            }
        }
    }

    /// The next report.
    pub fn report(&self) -> Report {
        self.reports.recv_timeout(DEADLINE).expect("a report in time")
    }

    /// Waits until the playhead is as wished.
    pub fn until(&self, what: &str, wish: impl Fn(&Heard) -> bool) -> Heard {
        let begun = Instant::now();
        loop {
            let heard = self.audio.heard();
            if wish(&heard) {
                return heard;
            }
            assert!(begun.elapsed() < DEADLINE, "{what}: {heard:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Plays pieces to their end.
    pub fn play(&self, pieces: Vec<Piece>) -> Heard {
        let entry = pieces.last().unwrap().entry;
        self.give(pieces);
        self.until("the end", |h| h.ended && h.entry == entry)
    }
}
