//! Tags and cover: what is known of the music, kept within bounds.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor};
use std::sync::{Mutex, PoisonError};

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageReader, Limits};
use jukebox_core::library::Digest;
use symphonia::core::formats::FormatOptions;
use symphonia::core::formats::probe::Hint;
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::{
    Metadata, MetadataOptions, MetadataReader, MetadataRevision, StandardTag, StandardVisualKey,
};
use symphonia::default::meta::Id3v2Reader;

use super::write::Store;

/// Longest text that is kept, in bytes: it must fit a panel and a message, and a tag may have megabytes.
const MAX_TEXT: usize = 400;
/// A cover's largest side, in pixels, and its greatest size, in bytes.
const COVER_SIDE: u32 = 240;
const COVER_BYTES: usize = 20_000;
/// Memory that one picture may cost while it is read.
const MAX_PICTURE: u64 = 96 << 20;

/// What a file says of its music. Empty and 0: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Title.
    pub title: String,
    /// Artist.
    pub artist: String,
    /// Album.
    pub album: String,
    /// Artist of the album.
    pub album_artist: String,
    /// Year of the recording or of its release.
    pub year: u16,
    /// Disc number.
    pub disc: u16,
    /// Number on the disc.
    pub number: u16,
    /// The picture, as it is in the file.
    pub picture: Option<Box<[u8]>>,
}

/// Reads tags; where a file has several kinds, the first that says something counts.
pub fn read(mut metadata: Metadata<'_>) -> Tags {
    let mut tags = Tags::default();
    loop {
        if let Some(revision) = metadata.current() {
            merge(&mut tags, revision);
        }
        if metadata.pop().is_none() {
            return tags;
        }
    }
}

/// Adds what an ID3v2 tag says and the tags do not; one that is broken says nothing.
pub fn add_id3(tags: &mut Tags, id3: Vec<u8>) {
    let stream = MediaSourceStream::new(Box::new(Cursor::new(id3)), MediaSourceStreamOptions::default());
    let read = Id3v2Reader::try_new(stream, MetadataOptions::default()).and_then(|mut reader| reader.read_all());
    if let Ok(found) = read {
        merge(tags, &found.revision);
    }
}

/// The picture of a file whose sound cannot be read here.
pub fn picture(file: File) -> Option<Box<[u8]>> {
    let stream = MediaSourceStream::new(Box::new(file), MediaSourceStreamOptions::default());
    let (format, meta) = (FormatOptions::default(), MetadataOptions::default());
    let mut format = symphonia::default::get_probe().probe(&Hint::new(), stream, format, meta).ok()?;
    read(format.metadata()).picture
}

fn merge(tags: &mut Tags, revision: &MetadataRevision) {
    let before = tags.clone_texts();
    let text = |field: &mut String, old: &str, value: &str| {
        let value = tidy(value);
        if !old.is_empty() || value.is_empty() || *field == value {
            return;
        }
        // Several artists are several tags.
        *field = if field.is_empty() { value } else { tidy(&format!("{field}, {value}")) };
    };
    let number = |field: &mut u16, n: u64| {
        if *field == 0 {
            *field = u16::try_from(n).unwrap_or(0);
        }
    };
    let per_track = revision.per_track.iter().flat_map(|t| &t.metadata.tags);
    for tag in revision.media.tags.iter().chain(per_track).filter_map(|t| t.std.as_ref()) {
        use StandardTag as S;
        match tag {
            S::TrackTitle(v) if tags.title.is_empty() => text(&mut tags.title, &before[0], v),
            S::Artist(v) => text(&mut tags.artist, &before[1], v),
            S::Album(v) if tags.album.is_empty() => text(&mut tags.album, &before[2], v),
            S::AlbumArtist(v) => text(&mut tags.album_artist, &before[3], v),
            S::RecordingYear(y) | S::ReleaseYear(y) => number(&mut tags.year, u64::from(*y)),
            S::RecordingDate(d) | S::ReleaseDate(d) => number(&mut tags.year, year(d)),
            S::DiscNumber(n) => number(&mut tags.disc, *n),
            S::TrackNumber(n) => number(&mut tags.number, *n),
            _ => {}
        }
    }
    if tags.picture.is_none() {
        let front = |v: &&symphonia::core::meta::Visual| v.usage == Some(StandardVisualKey::FrontCover);
        let visuals = &revision.media.visuals;
        tags.picture = visuals.iter().find(front).or(visuals.first()).map(|v| v.data.clone());
    }
}

impl Tags {
    fn clone_texts(&self) -> [String; 4] {
        [&self.title, &self.artist, &self.album, &self.album_artist].map(Clone::clone)
    }
}

/// Without control characters, runs of blanks and all beyond [`MAX_TEXT`].
pub fn tidy(text: &str) -> String {
    let mut out = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control() || c == '\u{feff}').filter(|w| !w.is_empty()) {
        let room = MAX_TEXT.saturating_sub(out.len() + usize::from(!out.is_empty()));
        if room == 0 {
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&word[..word.floor_char_boundary(room)]);
        if word.len() > room {
            break;
        }
    }
    out
}

/// The year that a date begins with.
fn year(date: &str) -> u64 {
    let digits = date.trim_start().get(..4).unwrap_or_default();
    digits.parse().unwrap_or(0)
}

/// Makes covers; pictures that many files share are worked on once.
#[derive(Debug, Default)]
pub struct Covers {
    known: Mutex<HashMap<Digest, Option<Digest>>>,
}

impl Covers {
    /// Stores the cover made from `picture`; none if it is no picture that we can read within bounds.
    pub fn store(&self, picture: &[u8], store: &Store) -> io::Result<Option<Digest>> {
        let key = Digest::of(picture);
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cover) = known().get(&key) {
            return Ok(*cover);
        }
        let cover = match small_jpeg(picture) {
            Some(jpeg) => Some(store.put(&jpeg)?),
            None => None,
        };
        known().insert(key, cover);
        Ok(cover)
    }
}

/// A JPEG of at most [`COVER_SIDE`] squared and [`COVER_BYTES`].
fn small_jpeg(picture: &[u8]) -> Option<Vec<u8>> {
    let mut reader = ImageReader::new(Cursor::new(picture)).with_guessed_format().ok()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(16_384);
    limits.max_image_height = Some(16_384);
    limits.max_alloc = Some(MAX_PICTURE);
    reader.limits(limits);
    let image = reader.decode().ok()?;
    let image = if image.width() > COVER_SIDE || image.height() > COVER_SIDE {
        image.thumbnail(COVER_SIDE, COVER_SIDE)
    } else {
        image
    };
    let rgb = DynamicImage::ImageRgb8(image.to_rgb8());
    [88, 75, 60, 45, 30, 15, 5].into_iter().find_map(|quality| {
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, quality).encode_image(&rgb).ok()?;
        (jpeg.len() <= COVER_BYTES).then_some(jpeg)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, Rgb, RgbImage};

    #[test]
    fn texts_are_tidied_and_bounded() {
        assert_eq!(tidy("  A\u{0}B \n\t C\u{feff} "), "A B C");
        let long = tidy(&"ü".repeat(1 << 20));
        assert!(long.len() <= MAX_TEXT && long.chars().all(|c| c == 'ü'), "{}", long.len());
        assert!(tidy(&"ab ".repeat(1 << 20)).len() <= MAX_TEXT);
        assert_eq!((year("1899-01-02"), year("99"), year("né en 1900")), (1899, 0, 0));
    }

    #[test]
    fn covers_are_small_whatever_comes_in() {
        let mut seed = 1u32;
        let noise = RgbImage::from_fn(900, 500, |_, _| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Rgb([(seed >> 24) as u8, (seed >> 16) as u8, (seed >> 8) as u8])
        });
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
            let mut bytes = Cursor::new(Vec::new());
            noise.write_to(&mut bytes, format).unwrap();
            let jpeg = small_jpeg(bytes.get_ref()).unwrap();
            assert!(jpeg.len() <= COVER_BYTES);
            let small = image::load_from_memory_with_format(&jpeg, ImageFormat::Jpeg).unwrap();
            assert_eq!((small.width(), small.height()), (240, 133));
        }
        assert_eq!(small_jpeg(&vec![0; 50 << 20]), None);
        // A PNG whose header speaks of 16,000 by 16,000 pixels.
        let mut bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x3e\x80\0\0\x3e\x80\x08\x06\0\0\0".to_vec();
        bomb.extend([0; 64]);
        assert_eq!(small_jpeg(&bomb), None);
    }
}
