//! A panel that is a PNG file: the picture, pixel for pixel.
//!
//! The file is replaced in one step, so that a viewer never sees half of it, and only when a pixel changed.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use embedded_graphics::pixelcolor::{BinaryColor, Rgb565, Rgb888};
use embedded_graphics::prelude::*;
use jukebox_core::view::View;

use super::draw::{self, Look, Style};
use super::frame::{Canvas, Frame};
use crate::profile::Screen;

/// The picture of a panel, kept in a file.
pub struct Png {
    path: PathBuf,
    shown: Shown,
}

enum Shown {
    Oled(Canvas<BinaryColor>),
    Lcd(Canvas<Rgb565>),
}

impl Png {
    /// Draws as `screen` would into the file `path`. Nothing is written before the first view.
    pub fn new(path: PathBuf, screen: Screen) -> Self {
        Self { path, shown: Shown::new(screen) }
    }

    /// Shows `view`; returns whether the next beat looks different.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn show(&mut self, view: &View, look: &Look) -> io::Result<bool> {
        let (paged, bytes) = self.shown.draw(view, look)?;
        if let Some(bytes) = bytes {
            let new = self.path.with_extension("png.new");
            fs::write(&new, bytes)?;
            fs::rename(&new, &self.path)?;
        }
        Ok(paged)
    }
}

/// The PNG of `view` as `screen` shows it.
///
/// # Errors
/// The encoder failed.
pub fn picture(screen: Screen, view: &View, look: &Look) -> io::Result<Vec<u8>> {
    Shown::new(screen).draw(view, look).map(|(_, bytes)| bytes.unwrap_or_default())
}

impl Shown {
    fn new(screen: Screen) -> Self {
        match screen {
            Screen::Oled => Self::Oled(Canvas::new(&draw::OLED)),
            Screen::Lcd => Self::Lcd(Canvas::new(&draw::LCD)),
        }
    }

    fn draw(&mut self, view: &View, look: &Look) -> io::Result<(bool, Option<Vec<u8>>)> {
        match self {
            // An OLED is dimmed by its current: its picture stays the same.
            Self::Oled(canvas) => encoded(canvas, view, look, &draw::OLED),
            Self::Lcd(canvas) => encoded(canvas, view, look, draw::lcd(look.dim)),
        }
    }
}

/// Whether the view is paged, and the file's bytes if a pixel changed.
fn encoded<C: PixelColor + Into<Rgb888>>(
    canvas: &mut Canvas<C>,
    view: &View,
    look: &Look,
    style: &Style<C>,
) -> io::Result<(bool, Option<Vec<u8>>)> {
    let paged = canvas.draw(view, look, style);
    if !canvas.is_changed() {
        return Ok((paged, None));
    }
    let bytes = encode(canvas.next()).map_err(io::Error::other)?;
    canvas.accept();
    Ok((paged, Some(bytes)))
}

fn encode<C: PixelColor + Into<Rgb888>>(frame: &Frame<C>) -> Result<Vec<u8>, png::EncodingError> {
    let size = frame.size();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size.width, size.height);
    encoder.set_color(png::ColorType::Rgb);
    // Drawn once a second, and mostly one colour: what is as the row above is nothing, and cheap. Row by row, for a picture in
    // one piece is memory that comes and goes.
    encoder.set_compression(png::Compression::Fastest);
    encoder.set_filter(png::Filter::Up);
    let mut writer = encoder.write_header()?;
    let mut rows = writer.stream_writer()?;
    let mut row = vec![0; size.width as usize * 3];
    let (mut above, mut last) = (&[][..], None);
    for pixels in frame.pixels().chunks(size.width as usize) {
        if pixels != above {
            for (bytes, &pixel) in row.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
                let (_, rgb) = last.filter(|l: &(C, [u8; 3])| l.0 == pixel).unwrap_or_else(|| {
                    let colour: Rgb888 = pixel.into();
                    (pixel, [colour.r(), colour.g(), colour.b()])
                });
                *bytes = rgb;
                last = Some((pixel, rgb));
            }
        }
        above = pixels;
        rows.write_all(&row)?;
    }
    rows.finish()?;
    writer.finish()?;
    Ok(bytes)
}
