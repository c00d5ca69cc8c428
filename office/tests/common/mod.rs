//! Music made on the spot with the tools that people use, and a library read back as a player reads it.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "only tests are helped")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jukebox_core::library::{
    CataloguePage, Digest, IndexPage, ROOT, Record, Rendition, RenditionName, Root, Row, SegmentRef,
};
use jukebox_core::segment::Segment;
use jukebox_office::publish::{Options, Summary, decoder, publish};
use symphonia::core::packet::PacketRef;
use symphonia::core::units::{Duration, Timestamp};

/// Runs a tool; its errors are the test's.
pub fn tool(name: &str, args: &[&str]) -> Vec<u8> {
    let out = Command::new(name).args(args).output().unwrap_or_else(|e| panic!("{name}: {e}: is it installed?"));
    assert!(out.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Plucked strings (Karplus and Strong) over a little hiss, as a WAV file.
pub fn wav(path: &Path, seconds: f64, rate: u32, channels: u16, bits: u16, seed: u32) {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    let frames = (seconds * f64::from(rate)) as usize;
    let mut mix = vec![0f32; frames * usize::from(channels)];
    let scale = [130.8f32, 164.8, 196.0, 220.0, 293.7, 349.2, 392.0, 493.9, 659.3];
    let mut at = 0;
    while at < frames {
        let hz = scale[(random().abs() * 8.99) as usize];
        let pan = random() * 0.5 + 0.5;
        let mut string: Vec<f32> = (0..(rate as f32 / hz) as usize).map(|_| random()).collect();
        let mut last = 0.0;
        for k in 0..(rate as usize * 8 / 5).min(frames - at) {
            let i = k % string.len();
            let x = string[i];
            string[i] = 0.498 * (x + last);
            last = x;
            for c in 0..usize::from(channels) {
                let gain = if c == 0 { 1.0 - pan } else { pan };
                mix[(at + k) * usize::from(channels) + c] += 0.3 * gain * x;
            }
        }
        at += (rate as f32 * (0.1 + 0.2 * random().abs())) as usize + 1;
    }
    let full = 2f32.powi(i32::from(bits) - 1);
    let mut data = Vec::new();
    for x in mix {
        let v = ((x + random() * 0.002).clamp(-0.98, 0.98) * full) as i32;
        data.extend_from_slice(&v.to_le_bytes()[..usize::from(bits / 8)]);
    }
    let block = channels * bits / 8;
    let mut file = b"RIFF".to_vec();
    file.extend((36 + data.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0");
    file.extend(channels.to_le_bytes());
    file.extend(rate.to_le_bytes());
    file.extend((rate * u32::from(block)).to_le_bytes());
    file.extend(block.to_le_bytes());
    file.extend(bits.to_le_bytes());
    file.extend(b"data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    fs::write(path, file).unwrap();
}

pub fn flac(wav: &Path, to: &Path, args: &[&str]) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    tool("flac", &[&["-s", "-f"], args, &[text(wav), "-o", text(to)]].concat());
}

pub fn mp3(wav: &Path, to: &Path, args: &[&str]) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    tool("lame", &[&["--quiet"], args, &[text(wav), text(to)]].concat());
}

/// A folder with music and room for a library.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("music")).unwrap();
        Self { dir }
    }
    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }
    pub fn music(&self, path: &str) -> PathBuf {
        self.at("music").join(path)
    }
    pub fn options(&self) -> Options {
        Options::new(self.at("music"), self.at("library"))
    }
    pub fn publish(&self) -> Summary {
        publish(&self.options()).unwrap()
    }
    pub fn library(&self) -> Library {
        Library(self.at("library"))
    }
}

/// A library as a player sees it.
pub struct Library(pub PathBuf);

impl Library {
    pub fn root(&self) -> Root {
        Root::parse(&fs::read(self.0.join(ROOT)).unwrap()).unwrap()
    }
    pub fn object(&self, digest: &Digest) -> Vec<u8> {
        let bytes = fs::read(self.0.join(digest.path())).unwrap();
        assert_eq!(Digest::of(&bytes), *digest);
        bytes
    }
    pub fn rows(&self) -> Vec<Row> {
        let page = |p: &jukebox_core::library::PageRef| {
            let bytes = zstd::bulk::decompress(&self.object(&p.object), 4 << 20).unwrap();
            CataloguePage::parse(&bytes).unwrap().rows
        };
        self.root().pages.iter().flat_map(page).collect()
    }
    pub fn record(&self, row: &Row) -> Record {
        Record::parse(&self.object(&row.record)).unwrap()
    }
    pub fn titled(&self, title: &str) -> Record {
        self.record(self.rows().iter().find(|r| r.title == title).unwrap_or_else(|| panic!("no {title}")))
    }
    /// A rendition's segments, each with its bytes.
    pub fn segments(&self, rendition: &Rendition) -> Vec<(SegmentRef, Vec<u8>)> {
        let whole = self.object(&rendition.object);
        let mut at = 0;
        let mut out = Vec::new();
        for page in &rendition.index {
            for s in IndexPage::parse(&self.object(&page.object)).unwrap().segments() {
                let bytes = whole[at..at + s.length as usize].to_vec();
                assert_eq!(Digest::of(&bytes), s.digest);
                at += bytes.len();
                out.push((s, bytes));
            }
        }
        assert_eq!(at, whole.len());
        out
    }
}

pub fn rendition(record: &Record, name: RenditionName) -> &Rendition {
    record.rendition(name).unwrap()
}

/// Decodes with a fresh decoder as a player does: pre-roll thrown away, then bodies; untrimmed.
pub fn decode(r: &Rendition, segments: &[(SegmentRef, Vec<u8>)]) -> Vec<f32> {
    let mut decoder = decoder(&r.init).unwrap();
    let (mut out, mut pcm) = (Vec::new(), Vec::new());
    let packet = |data| PacketRef::new(0, Timestamp::new(0), Duration::ZERO, data);
    for (k, (_, bytes)) in segments.iter().enumerate() {
        let segment = Segment::decode(bytes).unwrap();
        if k == 0 {
            for data in &segment.preroll {
                let _ = decoder.decode_ref(&packet(data));
            }
        }
        for data in &segment.body {
            match decoder.decode_ref(&packet(data)) {
                Ok(sound) => sound.copy_to_vec_interleaved(&mut pcm),
                Err(_) => pcm = vec![0.0; r.init.longest_packet as usize * usize::from(r.init.channels)],
            }
            out.extend_from_slice(&pcm);
        }
    }
    out
}

/// What is heard of a decoded rendition.
pub fn trim<'a>(r: &Rendition, decoded: &'a [f32]) -> &'a [f32] {
    let channels = usize::from(r.init.channels);
    &decoded[r.delay as usize * channels..][..r.frames as usize * channels]
}

/// What ffmpeg decodes a file to.
pub fn reference(path: &Path) -> Vec<f32> {
    let raw = tool("ffmpeg", &["-v", "error", "-i", text(path), "-f", "f32le", "-"]);
    raw.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}
